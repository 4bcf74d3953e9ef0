# SPDX-License-Identifier: Apache-2.0
"""A key-value cache that is written in place, where Transformers' own copies everything for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def cache_of(model: Any, steps: int) -> Any:
    """An empty cache for ``model``; layers that keep every token have room for ``steps`` more than are read first."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class InPlace(DynamicLayer):
        """``keys`` and ``values`` [n, h, tokens so far, d] are the beginning of longer buffers."""

        buffers: Sequence[Tensor] = ()
        seen = 0

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.buffers:
                self.lazy_initialization(key_states, value_states)
                n, h, t, _d = key_states.shape
                self.buffers = [x.new_empty(n, h, t + steps, x.shape[-1]) for x in (key_states, value_states)]
            begin, self.seen = self.seen, self.seen + key_states.shape[2]
            for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:, :, begin : self.seen] = new
            return self._shown()

        def batch_select_indices(self, indices: Tensor) -> None:
            if not self.buffers:
                return
            if len(indices) > len(self.buffers[0]):
                self.buffers = [x[indices] for x in self.buffers]
            else:  # only rows that change their place are copied
                moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
                for x in self.buffers:
                    x[moved, :, : self.seen] = x[indices[moved], :, : self.seen]
                self.buffers = [x[: len(indices)] for x in self.buffers]
            self._shown()

        def _shown(self) -> tuple[Tensor, Tensor]:
            keys, values = (x[:, :, : self.seen] for x in self.buffers)
            self.keys, self.values = keys, values
            return keys, values

    cache = DynamicCache(config=model.config)
    cache.layers = [InPlace() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_is_plain(model: Any) -> bool:
    """Keys and values of every token in every layer: no sliding window, no recurrent state."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
