# SPDX-License-Identifier: Apache-2.0
"""Reading the samples of a prompt without reading, or keeping, the prompt again for each.

Equal contexts go through the model once. Where the model takes it, their keys and values stay as they are, one for all samples;
each sample has a cache of its own tokens, and attends to both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.attention import NotOffered, attention_by_layout, takes_layouts
from guerdon.policies.cache import cache_of
from guerdon.policies.known_outputs import KnownOutputs
from guerdon.policies.products import factors_of, multiplying_by


class Reading:
    """A model with its key-value cache over N left-padded contexts, to be read on from.

    ``output(**inputs)`` calls ``model`` and returns [n, k, D] for the k tokens it was given (or only the last of them);
    ``steps``: how many more tokens will be read at most; ``share``: the rows of a context share its keys and values; ``known``
    is told what is read. ``last`` [N, D] is the output at the contexts' last tokens. Without gradient: keys and values are
    written in place, and the weights are read once, as they are now.
    """

    def __init__(
        self,
        model: Any,
        output: Callable[..., Tensor],
        contexts: Sequence[Sequence[int]],
        steps: int,
        share: bool = False,
        known: KnownOutputs | None = None,
    ) -> None:
        device = next(model.parameters()).device
        self.model, self.output = model, output
        # Padding behind a short row may lie beyond a table of positions; what is read there is never used.
        self.last_position = (getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62) - 1
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        unique = {c: k for k, c in enumerate(dict.fromkeys(map(tuple, contexts)))}
        several = 2 * len(unique) <= len(contexts)
        self.cache, self.known, self.factors = cache_of(model, steps), known, factors_of(model)
        if known is not None:
            known.begin(list(unique), len(contexts), steps)
        self.shared: SharedContexts | None = None
        longest = max(map(len, unique))
        self.pad = torch.tensor([longest - len(c) for c in unique], device=device)
        self.padded = bool(self.pad.any())
        self.slot = torch.arange(longest + steps, device=device)
        self.seen = 0
        last = self._read(torch.tensor([[0] * (longest - len(c)) + list(c) for c in unique], device=device))
        if len(unique) < len(contexts):
            rows = torch.tensor([unique[tuple(c)] for c in contexts], device=device)
            if share and several:
                hidden = self.slot[:longest] < self.pad[:, None] if self.padded else None
                self.shared = SharedContexts(self.cache.layers, hidden, rows)
                self.cache, self.pad = cache_of(model, steps), self.pad[rows]
            else:
                self._select(rows)
            last = last[rows]
        self.last = last

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self._select(rows)
        if self.shared is not None:
            self.shared.keep(rows)

    @torch.inference_mode()
    def _select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.pad = self.pad[rows]

    def read(self, token: Tensor) -> Tensor:
        """[n, D] the output for one more token [n] of each row."""
        return self._read(token[:, None])

    @torch.inference_mode()
    def _read(self, token: Tensor) -> Tensor:
        self.seen += token.shape[1]
        where: dict[str, Any] = {}
        slot = self.slot[: self.seen]
        if self.padded and self.shared is None:
            where["attention_mask"] = (slot >= self.pad[:, None]).long()
        if self.takes_positions and (self.padded or self.shared is not None):
            where["position_ids"] = (slot[-token.shape[1] :] - self.pad[:, None]).clamp(0, self.last_position)
        if self.shared is not None:
            where["layout"] = self.shared
        layout = attention_by_layout(self.model) if self.shared is not None else nullcontext()
        with layout, multiplying_by(self.factors), nullcontext() if self.known is None else self.known.listening():
            return self.output(input_ids=token, past_key_values=self.cache, use_cache=True, **where)[:, -1]


class SharedContexts:
    """Keys and values of U contexts, on which n rows stand, a token of each of which is read at a time.

    ``layers``: caches with ``keys`` and ``values`` [U, h, P, d], of which views [U h, d, P] and [U h, P, d] are kept; ``hidden``
    [U, P] bool: padding; ``of`` [n]: a row's context.
    """

    def __init__(self, layers: Sequence[Any], hidden: Tensor | None, of: Tensor) -> None:
        self.of, (self.count, self.heads, self.length, _) = of, layers[0].keys.shape
        self.keys = [a.keys.flatten(0, 1).transpose(1, 2) for a in layers]
        self.values = [a.values.flatten(0, 1) for a in layers]
        self.hidden = None if hidden is None else hidden.repeat_interleave(self.heads, 0)[:, None]
        self._place()

    def keep(self, rows: Tensor) -> None:
        self.of = self.of[rows]
        self._place()

    def _place(self) -> None:
        """Each row a place beside the other rows of its context: [U, most], some of which may be empty."""
        contexts = torch.arange(self.count, device=self.of.device)
        rank = (self.of[:, None] == contexts).cumsum(0).gather(1, self.of[:, None])[:, 0] - 1
        self.most = int(rank.max()) + 1
        place = self.of * self.most + rank
        in_order = len(place) == self.count * self.most and bool((place[1:] > place[:-1]).all())
        self.place = None if in_order else place

    def by_context(self, x: Tensor) -> Tensor:
        """[U h, most r, d] of [n h, r, d]; 0 where a place is empty."""
        r, d = x.shape[1:]
        if self.place is not None:
            x = x.view(-1, self.heads, r, d)
            x = x.new_zeros(self.count * self.most, self.heads, r, d).index_copy_(0, self.place, x)
        x = x.view(self.count, self.most, self.heads, r, d).transpose(1, 2)
        return x.reshape(self.count * self.heads, self.most * r, d)

    def by_row(self, x: Tensor) -> Tensor:
        """[n h, r, d] of [U h, most r, d]."""
        x = x.view(self.count, self.heads, self.most, -1, x.shape[2]).transpose(1, 2)
        x = x.flatten(0, 1) if self.place is None else x.flatten(0, 1)[self.place]
        return x.flatten(0, 1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, layer: int) -> Tensor:
        """Over the context's keys, which all rows of a context multiply at once, and the row's own, by one softmax."""
        n, heads, _, width = query.shape
        query = (query * (width**-0.5 if scale is None else scale)).reshape(n * self.heads, -1, width)  # groups share their key
        key, value = key.flatten(0, 1), value.flatten(0, 1)
        to_context = self.by_context(query) @ self.keys[layer]
        if self.hidden is not None:
            to_context = to_context.masked_fill(self.hidden, -torch.inf)
        scores = torch.cat([self.by_row(to_context), query @ key.transpose(1, 2)], -1)
        weight = scores.to(torch.promote_types(value.dtype, torch.float32)).softmax(-1).to(value.dtype)
        on_context, on_own = weight.split([self.length, key.shape[1]], -1)
        out = on_own @ value + self.by_row(self.by_context(on_context) @ self.values[layer])
        return out.view(n, 1, heads, width)


@torch.no_grad()
def shares_contexts(model: Any) -> bool:
    """Whether ``model`` says the same where rows share their context's keys and values. It is asked rather than its name."""
    if not takes_layouts(model):
        return False
    token = [k % model.config.get_text_config().vocab_size for k in (1, 2, 3)]
    read, found = torch.tensor([*token, token[0]], device=next(model.parameters()).device), []
    for share in (True, False):
        reading = Reading(model, lambda **inputs: model(**inputs).logits, [token[:1], token, token, token[:1]], 2, share)
        try:
            reading.read(read)
        except (NotOffered, TypeError):  # TypeError: a layer that doesn't hand on what it doesn't know
            return False
        reading.keep(read.new_tensor([0, 1, 3]))
        found.append(reading.read(read[:3]))
    shared, plain = found
    tolerance = 1e-3 if plain.dtype.itemsize >= 4 else 5e-2
    return torch.allclose(shared, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max()))
