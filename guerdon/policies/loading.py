# SPDX-License-Identifier: Apache-2.0
"""Causal language models with their tokenizers: from a directory, or new and small."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from guerdon.errors import InputError

VALUE_HEAD = "value_head.safetensors"


def load_model(
    path: str,
    *,
    lora: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Any, Any]:
    """(model, tokenizer) from a directory or hub name; see ``LanguagePolicy.load``."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    is_adapter = _check_directory(Path(path))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(path)
            base = _base_of_adapter(path) if is_adapter else path
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype or "auto")
    except (OSError, ValueError, SafetensorError) as e:
        raise InputError(
            f"LanguagePolicy: expected a causal language model with a tokenizer at {path!r}, got: {e} Usual cause: a misspelt "
            "path (a name that is no directory is looked up on the model hub), a copy cut short, or a model of another kind."
        ) from e
    model.to(where)
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path, is_trainable=True)
    elif lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**{"task_type": "CAUSAL_LM", **lora}))
    return model, tokenizer


def tiny_model(tokenizer: Any, *, width: int, layers: int, heads: int, max_length: int, seed: int) -> Any:
    """An untrained Llama for ``tokenizer``; its weights depend on ``seed`` alone, and the global generator is left as it was."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_length,
        initializer_range=width**-0.5,  # the usual 0.02 is meant for widths in the thousands
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an episode: those of the model's generation settings (one or a list) and the tokenizer's end token."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    found = sorted({i for i in (*ends, tokenizer.eos_token_id) if i is not None})
    if not found:
        raise InputError(
            "LanguagePolicy: expected an end token in the tokenizer or the generation settings, got none. "
            "Usual cause: a tokenizer made by hand without `eos_token`."
        )
    return found


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Reading and writing a model draws bars on the terminal otherwise."""
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was:
            logging.enable_progress_bar()


def _check_directory(path: Path) -> bool:
    """True if the directory holds an adapter; an error naming what it lacks. A path that is no directory is left to the hub."""
    if not path.is_dir():
        return False
    names = {p.name for p in path.iterdir()}
    weights = {n for n in names - {VALUE_HEAD} if n.endswith((".safetensors", ".bin"))}
    wanted = {
        "a tokenizer (tokenizer.json, tokenizer.model or vocab.json)": {"tokenizer.json", "tokenizer.model", "vocab.json"},
        "a model (config.json)": {"config.json", "adapter_config.json"},
        "the model's weights (*.safetensors or *.bin)": weights,
    }
    missing = [what for what, any_of in wanted.items() if not names & any_of]
    if missing:
        raise InputError(
            f"LanguagePolicy: {path} should hold a model and its tokenizer, but lacks {' and '.join(missing)}; it has "
            f"{', '.join(sorted(names)) or 'nothing'}. Usual cause: the directory of a run instead of the model in it, or a "
            "model saved without its tokenizer."
        )
    return "adapter_config.json" in names


def _base_of_adapter(path: str) -> str:
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(path).base_model_name_or_path
    if not base:
        raise InputError(
            f"LanguagePolicy: the adapter at {path} should name its base model, got none. "
            "Usual cause: a base model that was never saved."
        )
    return base
