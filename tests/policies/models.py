# SPDX-License-Identifier: Apache-2.0
"""Small untrained models of different architectures, and a byte-level tokenizer, for the tests of policies."""

import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Context

TOKENS = [*"0123456789:", *(f"+{d}" for d in range(10))]
PROMPTS = ["5+8:", "1+2+3+4+5+6:", "7:", "5+8:"]

_SMALL = {
    "vocab_size": len(TOKENS) + 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make(name: str) -> torch.nn.Module:
    """llama: rotary positions; gpt2: absolute; gemma2: soft cap, sliding window of 5; cohere, granite: a factor on the logits."""
    torch.manual_seed(0)
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**_SMALL))
    if name == "gpt2":
        shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        same = {k: _SMALL[k] for k in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id")}
        return GPT2LMHeadModel(GPT2Config(**shape, **same))
    if name == "gemma2":
        window = {"sliding_window": 5, "final_logit_softcapping": 2.0, "head_dim": 8, "query_pre_attn_scalar": 8}
        return Gemma2ForCausalLM(Gemma2Config(**_SMALL, **window))
    if name == "cohere":
        return CohereForCausalLM(CohereConfig(**_SMALL, logit_scale=0.25))
    return GraniteForCausalLM(GraniteConfig(**_SMALL, logits_scaling=3.0))


ARCHITECTURES = ("llama", "gpt2", "gemma2", "cohere", "granite")


def policy(name: str = "llama", dtype: torch.dtype = torch.float32, **settings) -> LanguagePolicy:
    return LanguagePolicy(make(name).to(dtype), word_tokenizer(TOKENS), **settings)


def contexts(n: int = 16) -> list[Context]:
    """``n`` rows of prompts of different lengths, of which some are equal."""
    return [Context(f"task {i % 4}", PROMPTS[i % 4], {"answer": str(i % 4)}, index=i // 4, group=i % 4) for i in range(n)]
