# SPDX-License-Identifier: Apache-2.0
"""A batch as one row of tokens: every different context once, then every completion, without padding.

Norms, projections and the rest of a layer see M tokens and nothing else; only attention sees the rows, which are laid out for it,
[N, L], and taken apart again. A model is read like this through the attention interface of Transformers.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from guerdon.policies.attention import NotOffered, attention_by_layout, takes_layouts
from guerdon.policies.generation import generate
from guerdon.policies.known_outputs import KnownOutputs
from guerdon.policies.token_batch import TokenBatch
from guerdon.protocols import Sampling

SHORT = 64
"""Tokens up to which whole products are faster than blocks."""


class FlatRow:
    """The M tokens of a batch that have to be read.

    ids, position [1, M]; at [N, L]: where in the row the tokens of each of the batch's rows are, 0 for padding on the right;
    back [M]: one place in ``at`` of each token; predicts [number of steps taken]: the tokens that predict them

    The order of the tokens is that in which they are ``known`` where they all are, else row by row.
    """

    def __init__(self, batch: TokenBatch, known: KnownOutputs | None = None) -> None:
        device, column = batch.ids.device, torch.arange(batch.ids.shape[1], device=batch.ids.device)
        read = torch.zeros_like(batch.before).scatter_reduce(0, batch.row, batch.step, "amax")  # the last taken predicts nothing
        there = column < (batch.before + read)[:, None]
        at = None if known is None else known.places(batch, read)
        self.known = None if at is None else known
        at = torch.where(there, _row_by_row(batch, read, column) if at is None else at, 0)
        self.used = torch.zeros(self.known.seen if self.known else int(at.max()) + 1, dtype=torch.bool, device=device)
        self.used[at[there]] = True
        self.at = torch.where(there, (self.used.cumsum(0) - 1)[at], 0)
        places = there.flatten().nonzero()[:, 0]
        self.back = torch.zeros(int(self.used.sum()), dtype=torch.long, device=device)
        self.back[self.at.flatten()[places]] = places
        self.ids = batch.ids.flatten()[self.back][None]
        self.position = (self.back % batch.ids.shape[1])[None]
        self.predicts = self.at[batch.row, batch.column]

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Within it the model reads the row."""
        return self.known.answering(self.used) if self.known else contextlib.nullcontext()

    def rows(self, x: Tensor) -> Tensor:
        """[N, h, L, d] of [1, h, M, d]."""
        flat = x.transpose(1, 2).flatten(2)[0]
        return embedding(self.at, flat).unflatten(2, (x.shape[1], -1)).transpose(1, 2)

    def row(self, x: Tensor) -> Tensor:
        """[1, M, h, d] of [N, h, L, d]."""
        flat = x.transpose(1, 2).flatten(2).flatten(0, 1)
        return embedding(self.back, flat).unflatten(1, (x.shape[1], -1))[None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, layer: int) -> Tensor:
        several = query.shape[1] // key.shape[1]  # grouped queries
        key, value = (self.rows(x).repeat_interleave(several, 1) if several > 1 else self.rows(x) for x in (key, value))
        return self.row(causal_attention(self.rows(query), key, value, query.shape[-1] ** -0.5 if scale is None else scale))


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """[N, h, L, d] softmax(scale q kᵀ + m) v with m = −∞ where the key comes after the query, else 0.

    Of short rows on a processor by whole products: the blocks of PyTorch's kernel are made for longer ones.
    """
    n, h, length, _ = query.shape
    if query.device.type != "cpu" or query.dtype != torch.float32 or length > SHORT:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))
    later = torch.full((length, length), -torch.inf).triu_(1)
    return (torch.baddbmm(later, q, k.transpose(1, 2), alpha=scale).softmax(-1) @ v).unflatten(0, (n, h))


def _row_by_row(batch: TokenBatch, read: Tensor, column: Tensor) -> Tensor:
    """[N, L] places of the tokens in a row of every different context and then of ``read`` [N] actions of each row."""
    unique = {c: k for k, c in enumerate(dict.fromkeys(map(tuple, batch.contexts)))}
    which = torch.tensor([unique[tuple(c)] for c in batch.contexts], device=column.device)
    size = torch.tensor([len(c) for c in unique], device=column.device)
    of_context = (size.cumsum(0) - size)[which, None]
    of_actions = (size.sum() + read.cumsum(0) - read - batch.before)[:, None]
    return column + torch.where(column < batch.before[:, None], of_context, of_actions)


def flat_hidden_states(model: Any, batch: TokenBatch, known: KnownOutputs | None = None) -> Tensor:
    """[steps taken, D] last hidden states of ``model.base_model`` from which the steps are predicted, with gradient."""
    flat = FlatRow(batch, known)
    with attention_by_layout(model), flat.reading():
        states = model.base_model(input_ids=flat.ids, position_ids=flat.position, layout=flat, use_cache=False).last_hidden_state
    return states[0][flat.predicts]


def padded_hidden_states(model: Any, batch: TokenBatch, known: KnownOutputs | None = None) -> Tensor:
    """The same with every row read whole, padding and all; nothing is ``known`` of such rows."""
    return model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state[batch.row, batch.column]


@torch.no_grad()
def reads_flat(model: Any) -> bool:
    """Whether ``model`` says the same of a flat row as of padded rows. It is asked rather than its name."""
    if not takes_layouts(model):
        return False
    vocabulary = model.config.get_text_config().vocab_size
    batch = TokenBatch.of(
        [[1 % vocabulary], [1 % vocabulary], [3 % vocabulary, 2 % vocabulary]],
        (torch.arange(9).reshape(3, 3) * 7 + 1) % vocabulary,
        torch.tensor([[True, True, False], [True, False, True], [True, True, True]]),
        next(model.parameters()).device,
    )
    padded = padded_hidden_states(model, batch)
    try:
        flat = flat_hidden_states(model, batch)
    except (NotOffered, TypeError):  # TypeError: a layer that doesn't hand on what it doesn't know
        return False
    tolerance = 1e-3 if padded.dtype.itemsize >= 4 else 5e-2
    return torch.allclose(flat, padded, rtol=tolerance, atol=tolerance * float(padded.abs().max()))


@torch.no_grad()
def answers_known(model: Any, known: KnownOutputs) -> bool:
    """Whether ``model`` says the same of a flat row where its layers' outputs are ``known`` from sampling. It is asked too."""
    vocabulary, device = model.config.get_text_config().vocab_size, next(model.parameters()).device
    contexts = [[1 % vocabulary], [1 % vocabulary], [3 % vocabulary, 2 % vocabulary]]
    uniform, limit = torch.linspace(0, 0.99, 9).view(3, 3), torch.tensor([1, 3, 3])
    drawn = generate(model, contexts, uniform, Sampling(3), ends=(), limit=limit, known=known)
    batch = TokenBatch.of(contexts, drawn.token, torch.arange(3, device=device) < drawn.length[:, None], device)
    if FlatRow(batch, known).known is None:
        return False
    found, plain = (flat_hidden_states(model, batch, k) for k in (known, None))
    return torch.allclose(found, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
