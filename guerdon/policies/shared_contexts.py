# SPDX-License-Identifier: Apache-2.0
"""Reading the samples of a prompt without reading the prompt again for each: equal contexts go through the model once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.token_batch import TokenBatch


class Reading:
    """A model with its key-value cache over N left-padded contexts, to be read on from.

    ``output(**inputs)`` calls ``model`` and returns [n, k, D] for the k tokens it was given (or only the last of them);
    ``steps``: how many more tokens will be read at most. ``last`` [N, D] is the output at the contexts' last tokens. The pass is
    differentiable, through the cache too.
    """

    def __init__(self, model: Any, output: Callable[..., Tensor], contexts: Sequence[Sequence[int]], steps: int) -> None:
        from transformers import DynamicCache

        device = next(model.parameters()).device
        self.output = output
        # Padding behind a short row may lie beyond a table of positions; what is read there is never used.
        self.last_position = (getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62) - 1
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.cache = DynamicCache(config=model.config)
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


def hidden_states(model: Any, batch: TokenBatch) -> Tensor:
    """[M, D] last hidden states of ``model.base_model`` from which the M steps taken are predicted, with gradient.

    Contexts that occur often are read once where that saves a quarter of the tokens or more.
    """
    n, width = batch.ids.shape
    contexts = set(map(tuple, batch.contexts))
    steps = int(batch.step.max()) + 1 if len(batch.step) else 1
    shared = len(contexts) * max(map(len, contexts)) + n * (steps - 1)
    if shared > 0.75 * n * width or not _cache_is_plain(model):
        return model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state[batch.row, batch.column]
    reading = Reading(model, lambda **inputs: model.base_model(**inputs).last_hidden_state, batch.contexts, steps - 1)
    states = reading.last[:, None]
    if steps > 1:
        states = torch.cat([states, reading.read(batch.action[:, : steps - 1])], 1)
    return states[batch.row, batch.step]


def _cache_is_plain(model: Any) -> bool:
    """Keys and values of every token in every layer: no sliding window, no recurrent state."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
