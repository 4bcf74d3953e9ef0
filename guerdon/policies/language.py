# SPDX-License-Identifier: Apache-2.0
"""A language model as a policy: any causal model of Hugging Face Transformers, whole or through a LoRA adapter.

A step is a token. The model stays in evaluation mode: with dropout, the log-probabilities of the same tokens would differ between
sampling and training.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guerdon.errors import CheckpointError, InputError
from guerdon.policies.flat import answers_known, flat_hidden_states, padded_hidden_states, reads_flat
from guerdon.policies.generation import Drawn, generate, is_truncated
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.head import LogitsOf, logits_from_hidden
from guerdon.policies.known_outputs import KnownOutputs
from guerdon.policies.loading import VALUE_HEAD, end_tokens, load_model, no_progress_bars, tiny_model
from guerdon.policies.products import choose_products
from guerdon.policies.shared_contexts import shares_contexts
from guerdon.policies.text import Decoder
from guerdon.policies.token_batch import TokenBatch
from guerdon.policies.token_distribution import statistics, statistics_in_chunks, stream
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Field, Rollouts, as_messages, completion_text

REFERENCES = ("none", "copy", "adapter")
PRODUCTS = ("float32", "bfloat16")


class LanguagePolicy:
    """``model`` (a causal language model or a PeftModel around one) with its ``tokenizer``.

    reference   the frozen policy that ``ref_log_prob`` is of: "none", "copy" (the weights as they are now, which takes as much
                memory again), "adapter" (the model without its LoRA adapter)
    value_head  adds a linear layer on the last hidden state: ``value`` of the state before each action
    products    "bfloat16" rounds the factors of every linear layer's product on a processor; the weights stay as they are
    chunk       how many logits may be in memory at once in ``evaluate``
    remember    how many outputs of linear layers may be kept from sampling for the update (``KnownOutputs``), on a processor
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        reference: str = "none",
        value_head: bool = False,
        products: str = "float32",
        chunk: int = 2**24,
        remember: int = 2**26,
    ) -> None:
        if reference not in REFERENCES:
            raise InputError(f"LanguagePolicy: `reference` should be one of {', '.join(REFERENCES)}, got {reference!r}.")
        if reference == "adapter" and not hasattr(model, "disable_adapter"):
            raise InputError(
                "LanguagePolicy: reference='adapter' needs a model with a LoRA adapter, got one without. "
                "Usual cause: `lora` not given."
            )
        if products not in PRODUCTS:
            raise InputError(f"LanguagePolicy: `products` should be one of {', '.join(PRODUCTS)}, got {products!r}.")
        if isinstance(remember, bool) or not isinstance(remember, int) or remember < 0:
            raise InputError(f"LanguagePolicy: `remember` should be a number of outputs, 0 for none, got {remember!r}.")
        self.model, self.tokenizer, self.chunk = model.eval(), tokenizer, chunk
        self.inner = _inner(model)
        choose_products(self.model, rounded=products == "bfloat16")
        config = self.inner.config.get_text_config()
        self.vocabulary: int = config.vocab_size
        self.max_length: int | None = getattr(config, "max_position_embeddings", None)
        self.ends = end_tokens(self.inner, tokenizer)
        self.decoder = Decoder(tokenizer)
        self._logits_of = logits_from_hidden(self.inner)
        self._hidden_states = flat_hidden_states if self._logits_of and reads_flat(self.inner) else padded_hidden_states
        self._shares_contexts = shares_contexts(self.inner)
        known = KnownOutputs(self.inner.base_model, remember)
        flat = self._hidden_states is flat_hidden_states
        self._known = known if flat and answers_known(self.inner, known) else None
        self._adds_bos = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        self.value_head: torch.nn.Linear | None = None
        if value_head:
            dtype = torch.promote_types(self.inner.dtype, torch.float32)
            self.value_head = torch.nn.Linear(config.hidden_size, 1, device=self.device, dtype=dtype)
            # Zeros: an untrained head says nothing, rather than noise on the scale of the hidden state.
            for p in self.value_head.parameters():
                torch.nn.init.zeros_(p)
        self.reference_kind = reference
        self.reference: Any = None
        if reference == "copy":
            self.set_reference()

    # ---- making one

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        lora: Mapping[str, Any] | None = None,
        reference: str = "none",
        value_head: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> LanguagePolicy:
        """From a directory (or hub name) in the format of Transformers or, with a saved adapter, of PEFT.

        ``lora``: arguments of ``peft.LoraConfig`` for a new adapter. ``dtype`` None: as saved. ``device`` None: CUDA if there is
        one.
        """
        path = Path(path_or_name)
        model, tokenizer = load_model(str(path_or_name), lora=lora, dtype=dtype, device=device)
        policy = cls(model, tokenizer, reference=reference, value_head=value_head, **settings)
        if policy.value_head is not None and (path / VALUE_HEAD).is_file():
            from safetensors.torch import load_file

            policy.value_head.load_state_dict(load_file(path / VALUE_HEAD))
        return policy

    @classmethod
    def tiny(
        cls,
        tokens: Any,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        max_length: int = 128,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> LanguagePolicy:
        """An untrained Llama of ``layers`` layers of ``width`` over a list of tokens (or a tokenizer), for training from scratch.

        ``max_length``: tokens of context and completion together. The weights depend on ``seed`` alone.
        """
        tokenizer = word_tokenizer(tokens) if isinstance(tokens, Sequence) else tokens
        model = tiny_model(tokenizer, width=width, layers=layers, heads=heads, max_length=max_length, seed=seed)
        return cls(model.to(device=device, dtype=dtype), tokenizer, **settings)

    def set_reference(self) -> None:
        """Make the weights as they are now the frozen reference; after a warm start, for example."""
        if self.reference_kind != "copy":
            raise InputError(f"LanguagePolicy: set_reference needs reference='copy', got {self.reference_kind!r}.")
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        self._reference_logits_of = logits_from_hidden(_inner(self.reference))

    @property
    def device(self) -> torch.device:
        return next(self.inner.parameters()).device

    @property
    def outputs(self) -> frozenset[str]:
        """What ``evaluate`` can be asked for."""
        names = {"log_prob", "entropy", "hidden"}
        names |= {"value"} if self.value_head is not None else set()
        return frozenset(names | ({"ref_log_prob"} if self.reference_kind != "none" else set()))

    # ---- text to tokens

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Chat messages as text by the tokenizer's template, up to where the assistant's next message begins."""
        if not self.tokenizer.chat_template:
            raise InputError(
                "LanguagePolicy: prompts that are chat messages need a tokenizer with a chat template, got one without. "
                "Usual cause: a base model; give plain strings, or set `tokenizer.chat_template`."
            )
        return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)

    def tokens(self, text: str) -> list[int]:
        """Ids of ``text``, with no beginning-of-text token added."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise InputError(
                f"LanguagePolicy: the tokenizer should know every part of a text, but doesn't of {text!r:.200}. "
                "Usual cause: a prompt of another task than the tokenizer's."
            )
        return ids

    def context(self, prompt: Any) -> list[int]:
        """Ids that precede the first action: a string as it is, messages through the chat template."""
        if isinstance(prompt, str):
            ids = [*([self.tokenizer.bos_token_id] if self._adds_bos else []), *self.tokens(prompt)]
        else:
            ids = self.tokens(self.render(prompt))
        if not ids:
            raise InputError("LanguagePolicy: a prompt should have at least one token, got none. Usual cause: an empty prompt.")
        return ids

    def contexts(self, prompts: Sequence[Any]) -> list[list[int]]:
        """``context`` of every prompt, each different one tokenised once."""
        known: dict[str, list[int]] = {}
        return [known[k] if (k := repr(p)) in known else known.setdefault(k, self.context(p)) for p in prompts]

    # ---- sampling

    def continuations(
        self,
        ids: Sequence[Sequence[int]],
        uniform: Tensor,
        sampling: Sampling,
        ready: Callable[[list[int], Drawn], None] | None = None,
    ) -> Drawn:
        """Tokens drawn after each context of ``ids`` with the numbers ``uniform`` [N, max_new_tokens]; see ``generate``."""
        room = torch.tensor([(self.max_length or 2**62) - len(c) for c in ids])
        if bool((room < 1).any()):
            n = int(room.argmin())
            raise InputError(
                f"LanguagePolicy: a context should be shorter than the model's {self.max_length} positions, got {len(ids[n])} "
                f"tokens in row {n}. Usual cause: a prompt for a model with longer context."
            )
        limit = room.clamp(max=uniform.shape[1])
        return generate(
            self.inner,
            ids,
            uniform,
            sampling,
            ends=self.ends,
            limit=limit,
            stops=self._stops(sampling.stop),
            share=self._shares_contexts,
            known=self._known,
            ready=ready,
        )

    def _stops(self, stop: tuple[str, ...]) -> Callable[[list[int]], bool] | None:
        """Whether the end of a row's tokens holds one of the ``stop`` strings."""
        if not stop:
            return None
        # A token that writes has at least one byte, a character at most four; the margin is for tokens that write nothing.
        tail = 4 * max(len(s) for s in stop) + 8
        return lambda tokens: any(s in self.decoder.text(tokens[-tail:]) for s in stop)

    def sample(
        self, contexts: Sequence[Context], sampling: Sampling, seed: int, ready: Callable[[Rollouts], None] | None = None
    ) -> Rollouts:
        """One row per context, drawn with the stream of (seed, task, index).

        A row ends at one of the model's end tokens or once one of ``sampling.stop`` is written (which stays in the completion);
        it is cut at ``max_new_tokens`` or at the model's last position. ``ready`` is told the rows that have ended, each once,
        while the others are drawn.
        """
        ids = self.contexts([c.prompt for c in contexts])
        uniform = stream(seed, [(c.task, c.index) for c in contexts], sampling.max_new_tokens)

        def told(rows: list[int], drawn: Drawn) -> None:
            assert ready is not None  # or nobody tells
            ready(self._drawn([contexts[n] for n in rows], [ids[n] for n in rows], drawn, sampling))

        return self._drawn(contexts, ids, self.continuations(ids, uniform, sampling, ready and told), sampling)

    def _drawn(self, contexts: Sequence[Context], ids: list[list[int]], drawn: Drawn, sampling: Sampling) -> Rollouts:
        """The rows of ``contexts``, whose tokens are ``ids``."""
        at = torch.arange(drawn.token.shape[1], device=self.device)
        last = at == drawn.length[:, None] - 1
        fields = task_fields(contexts) | self._text_fields([c.prompt for c in contexts], drawn.token, drawn.length)
        if drawn.kept is not None:
            fields["kept"] = Field("step", drawn.kept)
        return Rollouts(
            action=drawn.token,
            mask=at < drawn.length[:, None],
            task=[c.task for c in contexts],
            log_prob=drawn.log_prob,
            terminated=last & drawn.ended[:, None],
            truncated=last & ~drawn.ended[:, None],
            length=drawn.length,
            group=torch.tensor([c.group for c in contexts], device=self.device),
            fields=fields | {"context_ids": Field("task", ids)},
            sampling=settings_of(sampling),
        )

    def encode(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, task: Sequence[str] | None = None, **fields: Sequence[Any]
    ) -> Rollouts:
        """Rollouts of completions that somebody else wrote (strings or one assistant message), each closed by the end token.

        Their ``log_prob`` is unknown (None). ``task`` None: the prompts are the keys.
        """
        ids = self.contexts(prompts)
        end = self.ends[0] if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id
        written = [[*self.tokens(completion_text(c)), end] for c in completions]
        length = torch.tensor([len(w) for w in written], device=self.device)
        at = torch.arange(int(length.max()), device=self.device)
        action = torch.tensor([w + [0] * (len(at) - len(w)) for w in written], device=self.device)
        texts = self._text_fields(prompts, action, length)
        return Rollouts(
            action=action,
            mask=at < length[:, None],
            task=list(task) if task is not None else [str(p) for p in prompts],
            terminated=at == length[:, None] - 1,
            length=length,
            source=["demonstration"] * len(written),
            fields={k: Field("task", list(v)) for k, v in fields.items()} | texts | {"context_ids": Field("task", ids)},
        )

    def _text_fields(self, prompts: Sequence[Any], token: Tensor, length: Tensor) -> dict[str, Field]:
        """prompt, completion, offset and, where a prompt is a chat, messages."""
        offsets, texts = [], []
        for ids, n in zip(token.tolist(), length.tolist(), strict=True):
            text, spans = self.decoder.spans(ids[:n])
            texts.append(text)
            offsets.append(spans + [(len(text), len(text))] * (len(ids) - n))
        fields = {
            "prompt": Field("task", list(prompts)),
            "completion": Field("episode", [[x] for x in texts]),
            "offset": Field("step", torch.tensor(offsets, dtype=torch.long, device=self.device).reshape(*token.shape, 2)),
        }
        if any(not isinstance(p, str) for p in prompts):
            said = [[*as_messages(p), {"role": "assistant", "content": x}] for p, x in zip(prompts, texts, strict=True)]
            fields["messages"] = Field("episode", [[m] for m in said])
        return fields

    # ---- evaluation

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        """``want`` of log_prob, entropy, value, ref_log_prob [N, T] and hidden [N, T, D], 0 where the mask is False, in one pass.

        Probabilities are of the distribution the rollouts were sampled from: at their temperature (1 where that was 0), over the
        tokens that truncation kept. With gradient unless under ``torch.no_grad``; ``ref_log_prob`` never has one.
        """
        unknown = frozenset(want) - self.outputs
        if unknown:
            raise InputError(
                f"LanguagePolicy: evaluate offers {', '.join(sorted(self.outputs))}; asked for {', '.join(sorted(unknown))}. "
                "Usual cause: a policy made without `value_head=True` or without a `reference`."
            )
        batch = TokenBatch(rollouts, self.device, self.max_length)
        if want & {"log_prob", "entropy", "ref_log_prob"}:
            batch.check_kept()
        flat: dict[str, Tensor] = {}
        if want - {"ref_log_prob"}:
            flat |= self._flat(batch, want, self.inner, self._logits_of, self._known)
        if "ref_log_prob" in want:
            with torch.no_grad(), self._frozen() as (model, logits_of):
                flat["ref_log_prob"] = self._flat(batch, frozenset({"log_prob"}), model, logits_of)["log_prob"]
        shape = rollouts.mask.shape
        return {k: v.new_zeros(*shape, *v.shape[1:]).index_put((batch.row, batch.step), v) for k, v in flat.items() if k in want}

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[tuple[Any, LogitsOf | None]]:
        if self.reference is not None:
            yield _inner(self.reference), self._reference_logits_of
        else:
            with self.model.disable_adapter():
                yield self.inner, self._logits_of

    def _flat(
        self, batch: TokenBatch, want: frozenset[str], model: Any, logits_of: LogitsOf | None, known: KnownOutputs | None = None
    ) -> dict[str, Tensor]:
        """Outputs for the M steps taken, in row-major order; may hold more than is wanted."""
        flat: dict[str, Tensor] = {}
        if logits_of is None:
            flat = self._from_whole_logits(batch, want, model)
        else:
            flat["hidden"] = self._hidden_states(model, batch, known)
            if want & {"log_prob", "entropy"}:
                flat |= statistics_in_chunks(
                    flat["hidden"],
                    logits_of,
                    batch.token,
                    self.vocabulary,
                    temperature=batch.temperature,
                    kept=batch.kept,
                    entropy="entropy" in want,
                    chunk=self.chunk,
                )
        if "value" in want and self.value_head is not None:
            flat["value"] = self.value_head(flat["hidden"].to(self.value_head.weight.dtype))[:, 0]
        return flat

    def _from_whole_logits(self, batch: TokenBatch, want: frozenset[str], model: Any) -> dict[str, Tensor]:
        """For a model whose logits can't be had apart from its forward pass: a few rows at a time, again in the backward pass."""

        def of(rows: slice, here: Tensor) -> dict[str, Tensor]:
            out = model(input_ids=batch.ids[rows], use_cache=False, output_hidden_states=True)
            at = (batch.row[here] - rows.start, batch.column[here])
            kept = None if batch.kept is None else batch.kept[here]
            found = statistics(out.logits[at], batch.token[here], batch.temperature, kept, entropy="entropy" in want)
            return found | {"hidden": out.hidden_states[-1][at]}

        size = max(1, self.chunk // (batch.ids.shape[1] * self.vocabulary))
        again = torch.is_grad_enabled() and len(batch.ids) > size
        parts = []
        for i in range(0, len(batch.ids), size):
            some = (slice(i, i + size), (batch.row >= i) & (batch.row < i + size))
            parts.append(checkpoint(of, *some, use_reentrant=False) if again else of(*some))
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}

    # ---- learning

    def trained(self) -> dict[str, Tensor]:
        """name -> parameter that learns: the model's (only the adapter's, with LoRA) and the value head's."""
        found: dict[str, Tensor] = {f"model.{k}": p for k, p in self.model.named_parameters() if p.requires_grad}
        if self.value_head is not None:
            found |= {f"value_head.{k}": p for k, p in self.value_head.named_parameters()}
        return found

    def updater(self, *, lr: float = 1e-3, **settings: Any) -> GradientUpdater:
        """Gradient descent on the trained parameters; ``settings`` as in ``GradientUpdater``."""
        return GradientUpdater(self.trained(), lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor: the trained parameters and, with reference="copy", the reference's."""
        return {k: p.detach().clone() for k, p in self._stateful().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self._stateful()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k, p in mine.items() if p.shape != state[k].shape]
        if wrong:
            raise CheckpointError(
                f"LanguagePolicy: expected a state of the same {len(mine)} parameters, got one that differs in {len(wrong)}, "
                f"first {wrong[0]}. Usual cause: another model, adapter, reference or value head than the checkpoint's."
            )
        with torch.no_grad():
            for k, p in mine.items():
                p.copy_(state[k])

    def _stateful(self) -> dict[str, Tensor]:
        frozen = {} if self.reference is None else dict(self.reference.named_parameters(prefix="reference"))
        return {**self.trained(), **frozen}

    def save(self, path: Path | str) -> None:
        """Write what ``AutoModelForCausalLM`` (LoRA: ``PeftModel``) and ``AutoTokenizer`` load; the value head apart."""
        directory = Path(path)
        with no_progress_bars():
            self.model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
        if self.value_head is not None:
            from safetensors.torch import save_file

            save_file(self.value_head.state_dict(), directory / VALUE_HEAD)


def task_fields(contexts: Sequence[Context]) -> dict[str, Field]:
    """The contexts' own fields as task fields; None where a context lacks one."""
    names = dict.fromkeys(k for c in contexts for k in c.fields)
    return {k: Field("task", [c.fields.get(k) for c in contexts]) for k in names}


def settings_of(sampling: Sampling) -> dict[str, Any]:
    """What ``Rollouts.sampling`` keeps."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "truncated": is_truncated(sampling),
        "max_new_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
    }


def _inner(model: Any) -> Any:
    """The causal language model itself; a PeftModel's layers are in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
