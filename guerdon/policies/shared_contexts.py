# SPDX-License-Identifier: Apache-2.0
"""Reading the samples of a prompt without reading the prompt again for each: equal contexts go through the model once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.cache import cache_of


class Reading:
    """A model with its key-value cache over N left-padded contexts, to be read on from.

    ``output(**inputs)`` calls ``model`` and returns [n, k, D] for the k tokens it was given (or only the last of them);
    ``steps``: how many more tokens will be read at most. ``last`` [N, D] is the output at the contexts' last tokens. Without
    gradient: keys and values are written in place.
    """

    def __init__(self, model: Any, output: Callable[..., Tensor], contexts: Sequence[Sequence[int]], steps: int) -> None:
        device = next(model.parameters()).device
        self.output = output
        # Padding behind a short row may lie beyond a table of positions; what is read there is never used.
        self.last_position = (getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62) - 1
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.cache = cache_of(model, steps)
        unique = {c: k for k, c in enumerate(dict.fromkeys(map(tuple, contexts)))}
        longest = max(map(len, unique))
        pad = torch.tensor([longest - len(c) for c in unique], device=device)
        self.pad = pad if bool(pad.any()) else None
        self.slot = torch.arange(longest + steps, device=device)
        self.seen = 0
        last = self.read(torch.tensor([[0] * (longest - len(c)) + list(c) for c in unique], device=device))[:, -1]
        if len(unique) < len(contexts):
            rows = torch.tensor([unique[tuple(c)] for c in contexts], device=device)
            self.keep(rows)
            last = last[rows]
        self.last = last

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (repeats allowed)."""
        self.cache.batch_select_indices(rows)
        self.pad = None if self.pad is None else self.pad[rows]

    def read(self, token: Tensor) -> Tensor:
        """The output for more tokens [n, k] of each row."""
        self.seen += token.shape[1]
        where = {}
        if self.pad is not None:
            slot = self.slot[: self.seen]
            where["attention_mask"] = (slot >= self.pad[:, None]).long()
            if self.takes_positions:
                where["position_ids"] = (slot[-token.shape[1] :] - self.pad[:, None]).clamp(0, self.last_position)
        return self.output(input_ids=token, past_key_values=self.cache, use_cache=True, **where)
