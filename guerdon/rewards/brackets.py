# SPDX-License-Identifier: Apache-2.0
"""Who plays whom: tournaments of n players as generators that yield the next matches and end with everybody's place.

A topology yields a round, a list of pairs (a, b) of players 0 to n - 1, and is sent their scores, a list of (score of a, score of
b), higher better, NaN for both where a match could not be judged. It returns n places, 0 the best; equals share the lowest of
theirs (min-rank). A player none of whose matches was judged has no place: NaN. A match that was not judged scores for nobody;
where somebody must go on, it is the one listed first, as with equal scores.

==================  ==============  =========================================================================================
topology            matches          places by
==================  ==============  =========================================================================================
anchor              n - 1           the score against player 0; that player's own is the mean of its scores
round_robin         n (n - 1) / 2   matches won, half of one for a draw
swiss               n/2 log2 n      matches won, then those of the opponents (Buchholz)
single_elimination  n - 1           the round of the defeat, then the mean score. ``seeded``: anchor's matches first, n - 1 more
double_elimination  2n - 2, 2n - 1  the round of the second defeat, then the mean score
==================  ==============  =========================================================================================

>>> strength = [3, 9, 5, 7]
>>> def judged(pairs): return [(strength[a], strength[b]) for a, b in pairs]
>>> for topology in (anchor, round_robin, swiss, single_elimination, double_elimination):
...     places, matches = play(topology(4), judged)
...     print(places, matches)
[3.0, 0.0, 2.0, 1.0] 3
[3.0, 0.0, 2.0, 1.0] 6
[3.0, 0.0, 2.0, 1.0] 4
[3.0, 0.0, 2.0, 1.0] 6
[3.0, 0.0, 2.0, 1.0] 6
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence

Pairs = list[tuple[int, int]]
Results = Sequence[tuple[float, float]]
Tournament = Generator[Pairs, Results, list[float]]
Topology = Callable[[int], Tournament]


def play(tournament: Tournament, judged: Callable[[Pairs], Results]) -> tuple[list[float], int]:
    """The places, and how many matches it took."""
    matches, pairs = 0, next(tournament)
    while True:
        matches += len(pairs)
        try:
            pairs = tournament.send(judged(pairs))
        except StopIteration as end:
            return end.value, matches


def places_of(values: Sequence[tuple[float, ...]]) -> list[float]:
    """Place of each by its value, greater first; equals share the lowest. A value with a NaN has no place.

    >>> places_of([(2.0,), (1.0,), (2.0,), (math.nan,)])
    [0.0, 2.0, 0.0, nan]
    """
    known = [v for v in values if not any(map(math.isnan, v))]
    return [float(sum(w > v for w in known)) if v in known else math.nan for v in values]


def placement(size: int) -> list[int]:
    """Order of ``size`` (a power of two) seeds in a bracket, so that the best meet last.

    >>> placement(8)
    [0, 7, 3, 4, 1, 6, 2, 5]
    """
    order = [0]
    while len(order) < size:
        order = [x for i in order for x in (i, 2 * len(order) - 1 - i)]
    return order


class _Record:
    """What each player has scored so far."""

    def __init__(self, n: int) -> None:
        self.scores: list[list[float]] = [[] for _ in range(n)]

    def add(self, pairs: Pairs, results: Results) -> list[int]:
        """Take a round down; its winners."""
        for (a, b), (x, y) in zip(pairs, results, strict=True):
            if not math.isnan(x + y):
                self.scores[a].append(x)
                self.scores[b].append(y)
        return [b if y > x else a for (a, b), (x, y) in zip(pairs, results, strict=True)]

    def means(self) -> list[float]:
        return [sum(s) / len(s) if s else math.nan for s in self.scores]


def anchor(n: int) -> Tournament:
    record = _Record(n)
    pairs = [(0, i) for i in range(1, n)]
    record.add(pairs, (yield pairs))
    return places_of([(x,) for x in record.means()])


def round_robin(n: int) -> Tournament:
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    return places_of([(x,) for x in _won(n, pairs, (yield pairs))])


def swiss(n: int) -> Tournament:
    won, met, judged = [0.0] * n, [set[int]() for _ in range(n)], [False] * n
    had_bye: set[int] = set()
    for _ in range(max(1, math.ceil(math.log2(n)))):
        order = sorted(range(n), key=lambda i: -won[i])
        if n % 2:
            bye = next(i for i in reversed(order) if i not in had_bye)
            had_bye.add(bye)
            order.remove(bye)
            won[bye] += 1
        pairs = _neighbours(order, met)
        results = yield pairs
        for i, x in enumerate(_won(n, pairs, results)):
            won[i] += 0.0 if math.isnan(x) else x
            judged[i] = judged[i] or not math.isnan(x)
        for a, b in pairs:
            met[a].add(b)
            met[b].add(a)
    buchholz = [sum(won[j] for j in met[i]) for i in range(n)]
    return places_of([(won[i], buchholz[i]) if judged[i] else (math.nan,) for i in range(n)])


def single_elimination(n: int, *, seeded: bool = True) -> Tournament:
    record = _Record(n)
    if seeded:
        pairs = [(0, i) for i in range(1, n)]
        record.add(pairs, (yield pairs))
    seeds = sorted(range(n), key=lambda i: _last_if_nan(record.means()[i]))
    alive: list[int | None] = [seeds[i] if i < n else None for i in placement(2 ** math.ceil(math.log2(n)))]
    out = [0] * n
    for number in range(1, n):
        met = list(zip(alive[::2], alive[1::2], strict=True))
        pairs = [(a, b) for a, b in met if a is not None and b is not None]
        winners = iter(record.add(pairs, (yield pairs)))
        alive = [next(winners) if a is not None and b is not None else a if b is None else b for a, b in met]
        for a in alive:
            if a is not None:
                out[a] = number
        if len(alive) == 1:
            break
    return _by_round_then_mean(out, record)


def double_elimination(n: int) -> Tournament:
    record, losses, out, number = _Record(n), [0] * n, [0] * n, 0
    while sum(x < 2 for x in losses) > 1:
        number += 1
        pairs: Pairs = []
        for defeats in (0, 1):
            standing = [i for i in range(n) if losses[i] == defeats]
            pairs += list(zip(standing[::2], standing[1::2], strict=False))
        if not pairs:  # one without defeat against one with one
            pairs = [(losses.index(0), losses.index(1))]
        winners = record.add(pairs, (yield pairs))
        for (a, b), winner in zip(pairs, winners, strict=True):
            loser = b if winner == a else a
            losses[loser] += 1
            out[loser] = number
    out[next(i for i in range(n) if losses[i] < 2)] = number + 1
    return _by_round_then_mean(out, record)


def _won(n: int, pairs: Pairs, results: Results) -> list[float]:
    """Matches won, half of one for a draw; NaN for who has no judged match."""
    won = [math.nan] * n
    for (a, b), (x, y) in zip(pairs, results, strict=True):
        if not math.isnan(x + y):
            for i, point in ((a, (x > y) + 0.5 * (x == y)), (b, (y > x) + 0.5 * (x == y))):
                won[i] = point if math.isnan(won[i]) else won[i] + point
    return won


def _neighbours(order: list[int], met: list[set[int]]) -> Pairs:
    """Each with the next of ``order`` whom it has not met, or with the next."""
    left, pairs = list(order), []
    while left:
        a = left.pop(0)
        b = next((x for x in left if x not in met[a]), left[0])
        left.remove(b)
        pairs.append((a, b))
    return pairs


def _last_if_nan(x: float) -> float:
    return math.inf if math.isnan(x) else -x


def _by_round_then_mean(out: list[int], record: _Record) -> list[float]:
    return places_of([(float(r), m) for r, m in zip(out, record.means(), strict=True)])
