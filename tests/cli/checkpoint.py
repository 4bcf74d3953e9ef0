# SPDX-License-Identifier: Apache-2.0
"""A language model as somebody else would hand it over: made with transformers and tokenizers, taught with plain torch, saved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = "\n !\"#%'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}"
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def character_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    vocabulary = ["<pad>", "<eos>", "<unk>", *CHARACTERS]
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(vocabulary)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=CHAT if chat else None
    )


def untrained(tokenizer: PreTrainedTokenizerFast, seed: int, width: int = 64) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        initializer_range=width**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def teach(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], updates: int, seed: int
) -> None:
    """Cross-entropy on the answers with Adam, the learning rate going down to 0."""
    draw = random.Random(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, updates)
    for _ in range(updates):
        rows = [(tokenizer(p).input_ids, [*tokenizer(a).input_ids, tokenizer.eos_token_id]) for p, a in draw.choices(pairs, k=64)]
        longest = max(len(p) + len(a) for p, a in rows)
        ids = torch.tensor([[*p, *a, *[tokenizer.pad_token_id] * (longest - len(p) - len(a))] for p, a in rows])
        labels = torch.tensor([[*[-100] * len(p), *a, *[-100] * (longest - len(p) - len(a))] for p, a in rows])
        loss = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def save(directory: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
