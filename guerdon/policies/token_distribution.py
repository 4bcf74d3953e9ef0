# SPDX-License-Identifier: Apache-2.0
"""The distribution a token is drawn from, as pure functions on logits: truncation, draw, log-probability, entropy.

The sampler and the trainer call the same two functions, so that both mean the same distribution by ``log_prob``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

DRAWN_AT_ONCE = 2**21
"""Probabilities in float64 in memory at once while drawing; more are not faster, and there are several tensors of them."""


def uniforms(seed: int, task: str, index: int, count: int) -> np.ndarray:
    """[count] float64 in [0, 1): the stream of one row, keyed by (seed, task, index); a longer one begins with a shorter one.

    >>> bool((uniforms(0, "a", 1, 3) == uniforms(0, "a", 1, 5)[:3]).all()), round(uniforms(0, "a", 1, 1)[0], 6)
    (True, np.float64(0.769746))
    """
    digest = hashlib.blake2b(repr((int(seed), task, int(index))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8"))).random(count)


def stream(seed: int, keys: Sequence[tuple[str, int]], count: int) -> Tensor:
    """[N, count] float64: the stream of each (task, index)."""
    return torch.from_numpy(np.stack([uniforms(seed, task, index, count) for task, index in keys]))


def kept_tokens(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """[n, M] ids of the tokens that truncation keeps of ``logits`` [n, V] (already divided by the temperature), padded with -1.

    Most likely first: at most ``top_k`` of them (0: no limit), then the fewest whose share of what is left reaches ``top_p``.

    >>> kept_tokens(torch.tensor([[.5, .1, .3, .1]]).log(), top_k=0, top_p=0.7).tolist()
    [[0, 2]]
    """
    count = min(top_k, logits.shape[-1]) if top_k > 0 else logits.shape[-1]
    best, ids = logits.topk(count, dim=-1)
    share = best.double().softmax(-1)
    keep = share.cumsum(-1) - share < top_p
    keep[..., 0] = True
    return torch.where(keep, ids, -1)[:, : int(keep.sum(-1).max())]


def draw(logits: Tensor, uniform: Tensor, kept: Tensor | None = None) -> Tensor:
    """[n] tokens: the first whose cumulative probability exceeds ``uniform`` [n], in the order of the vocabulary.

    ``logits`` [n, V] divided by the temperature; ``kept`` [n, M]: only these ids, -1 = none.

    >>> draw(torch.tensor([.5, .25, .25]).log().expand(3, 3), torch.tensor([0., .6, .99])).tolist()
    [0, 1, 2]
    """
    size = max(1, DRAWN_AT_ONCE // logits.shape[1])
    if len(logits) > size:
        kept_parts = [None] * len(logits) if kept is None else kept.split(size)
        return torch.cat([draw(*part) for part in zip(logits.split(size), uniform.split(size), kept_parts, strict=False)])
    if kept is not None:
        # Padding scatters to one column beyond the vocabulary, which is cut off again.
        allowed = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
        allowed = allowed.scatter(1, torch.where(kept < 0, logits.shape[1], kept), True)[:, :-1]
        logits = logits.masked_fill(~allowed, -torch.inf)
    probability = logits.double().softmax(-1)
    cumulative = probability.cumsum(-1)
    at = torch.searchsorted(cumulative, uniform[:, None].double() * cumulative[:, -1:], right=True)[:, 0]
    # Rounding can put the point on the very end of the line; there is nothing to its right.
    return torch.where(at < logits.shape[1], at, probability.argmax(-1))


def statistics(
    logits: Tensor, token: Tensor, temperature: float = 1.0, kept: Tensor | None = None, *, entropy: bool = False
) -> dict[str, Tensor]:
    """log_prob [n] of ``token`` and, if asked for, entropy [n], in nats, of π = softmax(``logits`` [n, V] / ``temperature``).

        log π(a) = z_a − log Σ_b exp z_b        H(π) = log Σ_b exp z_b − Σ_b π_b z_b        z = logits / temperature

    b runs over ``kept`` [n, M] (-1 = none) where it is given. Half precision is brought to float32 first.

    >>> found = statistics(torch.tensor([[.5, .25, .25]]).log(), torch.tensor([1]), entropy=True)
    >>> {k: round(v.item(), 4) for k, v in found.items()}  # log 1/4 and 1.5 log 2
    {'log_prob': -1.3863, 'entropy': 1.0397}
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = z if temperature == 1.0 else z / temperature
    chosen = z.gather(-1, token[:, None])[:, 0]
    if kept is not None:
        z = z.gather(-1, kept.clamp(min=0)).masked_fill(kept < 0, -torch.inf)
    total = z.logsumexp(-1)
    found = {"log_prob": chosen - total}
    if entropy:
        finite = z if kept is None else z.masked_fill(kept < 0, 0.0)
        found["entropy"] = total - ((z - total[:, None]).exp() * finite).sum(-1)
    return found


def statistics_in_chunks(
    hidden: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    token: Tensor,
    vocabulary: int,
    *,
    temperature: float = 1.0,
    kept: Tensor | None = None,
    entropy: bool = False,
    chunk: int = 2**24,
) -> dict[str, Tensor]:
    """``statistics`` of ``logits_of(hidden [M, D])`` with at most ``chunk`` logits in memory at once (one row of V at least).

    With a gradient each chunk's logits are made again in the backward pass; where one chunk is enough, they are kept instead.
    """

    def of(rows: slice) -> dict[str, Tensor]:
        some_kept = None if kept is None else kept[rows]
        return statistics(logits_of(hidden[rows]), token[rows], temperature, some_kept, entropy=entropy)

    size = max(1, chunk // vocabulary)
    if len(token) <= size:
        return of(slice(None))
    again = torch.is_grad_enabled()
    slices = [slice(i, i + size) for i in range(0, len(token), size)]
    parts = [checkpoint(of, rows, use_reentrant=False) if again else of(rows) for rows in slices]
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
