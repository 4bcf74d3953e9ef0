# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens from a causal language model with a key-value cache.

Equal contexts are read once; a row that has ended leaves the batch. Each row brings its own uniform numbers, so who else is in
the batch does not change what it draws, up to rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.known_outputs import KnownOutputs
from guerdon.policies.shared_contexts import Reading
from guerdon.policies.token_distribution import draw, kept_tokens, statistics
from guerdon.protocols import Sampling


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    token [N, T] int64 and log_prob [N, T], 0 beyond ``length`` [N]; ended [N] bool: by an end token or a stop string, not by a
    limit; kept [N, T, M] int64: ids that truncation kept, -1 = none (only where asked for).
    """

    token: Tensor
    log_prob: Tensor
    length: Tensor
    ended: Tensor
    kept: Tensor | None = None


def is_truncated(sampling: Sampling) -> bool:
    """Whether some tokens cannot be drawn. Greedy choice is not truncation: its log-probability is that of the whole softmax."""
    return sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)


@torch.no_grad()
def generate(
    model: Any,
    contexts: Sequence[Sequence[int]],
    uniform: Tensor,
    sampling: Sampling,
    *,
    ends: Sequence[int],
    limit: Tensor,
    stops: Callable[[list[int]], bool] | None = None,
    share: bool = False,
    known: KnownOutputs | None = None,
    ready: Callable[[list[int], Drawn], None] | None = None,
) -> Drawn:
    """Continue every context; row n draws with ``uniform`` [N, T]. It stops at a token of ``ends``, when ``stops`` (told
    its tokens so far) says so, or after ``limit`` [N] tokens. ``share``: rows of a context share its keys and values, which not
    every model allows (``shares_contexts``). ``ready`` is told the rows that end at a step, without ``kept``, before the next.

    ``log_prob`` is of the distribution drawn from, temperature and truncation included; at temperature 0 of temperature 1.
    """
    device = next(model.parameters()).device
    n, steps = uniform.shape
    uniform, limit, end = uniform.to(device), limit.to(device), torch.tensor(list(ends), dtype=torch.long, device=device)
    temperature = sampling.temperature or 1.0
    truncated = is_truncated(sampling)
    token = torch.zeros(n, steps, dtype=torch.long, device=device)
    length = torch.zeros(n, dtype=torch.long, device=device)
    ended = torch.zeros(n, dtype=torch.bool, device=device)
    kept_at: list[tuple[Tensor, Tensor]] = []

    live = torch.arange(n, device=device)
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    reading = Reading(model, lambda **inputs: model(**inputs, **last_only).logits, contexts, steps, share, known)
    logits = reading.last
    log_prob = torch.zeros(n, steps, device=device, dtype=torch.promote_types(logits.dtype, torch.float32))
    for t in range(steps):
        kept = kept_tokens(logits / temperature, sampling.top_k, sampling.top_p) if truncated else None
        a = logits.argmax(-1) if sampling.temperature == 0 else draw(logits / temperature, uniform[live, t], kept)
        token[live, t] = a
        log_prob[live, t] = statistics(logits, a, temperature, kept)["log_prob"]
        if kept is not None and sampling.keep_set:
            kept_at.append((live, kept))
        done = torch.isin(a, end)
        if stops is not None:
            texts = token[live, : t + 1].tolist()
            done |= torch.tensor([stops(ids) for ids in texts], device=device)
        ended[live] = done
        length[live] = t + 1
        on = ~done & (limit[live] > t + 1)
        if ready is not None and not on.all():
            over = live[~on]
            ready(over.tolist(), Drawn(token[over, : t + 1], log_prob[over, : t + 1], length[over], ended[over]))
        if not on.any():
            break
        if not on.all():
            stay = _closed_up(on)
            live, a = live[stay], a[stay]
            reading.keep(stay)
        logits = reading.read(a)
        if known is not None:
            known.took(live)
    if known is not None:
        known.end(contexts, token, length)
    steps = int(length.max())
    return Drawn(token[:, :steps], log_prob[:, :steps], length, ended, _gathered(kept_at, n) if kept_at else None)


def _closed_up(on: Tensor) -> Tensor:
    """The places of the rows that are ``on``, each where it is or, those at the end, where one was that is not: few move.

    >>> _closed_up(torch.tensor([True, False, True, False, True, True])).tolist()
    [0, 4, 2, 5]
    """
    m = int(on.sum())
    places = torch.arange(m, device=on.device)
    places[~on[:m]] = m + on[m:].nonzero()[:, 0]
    return places


def _gathered(kept_at: list[tuple[Tensor, Tensor]], n: int) -> Tensor:
    out = torch.full((n, len(kept_at), max(k.shape[1] for _, k in kept_at)), -1, dtype=torch.long, device=kept_at[0][1].device)
    for t, (live, kept) in enumerate(kept_at):
        out[live, t, : kept.shape[1]] = kept
    return out
