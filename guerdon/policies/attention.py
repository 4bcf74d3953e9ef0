# SPDX-License-Identifier: Apache-2.0
"""Attention that knows how the tokens it sees lie, put under a model by the attention interface of Transformers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

from guerdon.policies.cache import cache_is_plain

NAME = "guerdon"
UNUSUAL = ("softcap", "s_aux", "sliding_window", "position_bias")


class NotOffered(Exception):
    """The model's attention asks for something that a layout does not have."""


class Layout(Protocol):
    """How tokens lie."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, layer: int) -> Tensor:
        """[n, t, H, d] of ``query`` [n, H, t, d] and ``key`` and ``value`` [n, h, T, d]; ``scale`` None: 1 / sqrt(d)."""
        ...


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **how: Any) -> tuple[Tensor, None]:
    layout: Layout | None = how.get("layout")
    if layout is None or any(how.get(k) is not None for k in UNUSUAL):
        raise NotOffered
    return layout.attend(query, key, value, how.get("scaling"), module.layer_idx), None


@contextlib.contextmanager
def attention_by_layout(model: Any) -> Iterator[None]:
    """Within it, ``model`` is called with ``layout=`` and attends as that says."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    was = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = was


def takes_layouts(model: Any) -> bool:
    """Whether ``model`` may take a layout; whether it then says the same is for those who make one to find out."""
    backend = getattr(model, "_supports_attention_backend", False)
    return backend and "position_ids" in inspect.signature(model.base_model.forward).parameters and cache_is_plain(model)
