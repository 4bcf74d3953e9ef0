# SPDX-License-Identifier: Apache-2.0
"""Contracts: what any reward promises, whatever it is for.

Every check takes a reward and some outputs as Rollouts; none needs to know what a good output is. Which promise a value gives
about other rows follows from the reward's declared relation:

    self, reference, former self    a row's value is the same alone, in any batch and in any order
    group                           permuting a group's members permutes their values; other groups change nothing
    batch                           permuting the batch permutes its values
"""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.audit.findings import Check, Finding, trimmed
from guerdon.audit.subject import total_of
from guerdon.rewards import Reward
from guerdon.rewards.worker import caught
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Scores, Status

Make = Callable[[], Reward]
Show = Callable[[int], str]

SECONDS = 1.0
"""Time that one row may take where no budget is declared."""


def contracts(make: Make, rollouts: Rollouts, show: Show, in_process: Make | None = None) -> list[Check]:
    """Every check on the same rows. A reward that can't score them at all is one finding.

    ``show(row)`` tells a row's output. ``in_process``: the reward without a time budget, for what can only be seen from inside.
    """
    _, error = caught(lambda: make().score(fresh(rollouts)))
    if error is not None:
        says = f"scoring {len(rollouts)} rows raised {type(error).__name__}: {error}"
        return [
            Check(
                "scores", "it scores the rows at all", [Finding("raises for the whole batch", trimmed(says))], "", len(rollouts)
            )
        ]
    checks = (deterministic, finite, bounded, one_by_one, permuted, unchanged, picklable, in_time)
    found = [check(make, fresh(rollouts), show) for check in checks]
    return [*found, loud(make if in_process is None else in_process, fresh(rollouts), show, hangs=bool(found[-1].findings))]


def deterministic(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """The same rows get the same values again: from the same object, five times, and from a new one."""
    reward = make()
    first = values(reward, rollouts)
    again = [values(reward, rollouts) for _ in range(4)] + [values(make(), rollouts)]
    apart = next((a for a in again if not same(first, a)), None)
    found = [] if apart is None else [_differs("not deterministic", "when scored again", first, apart, show)]
    return Check("deterministic", "the same rows get the same values again", found, "", len(rollouts))


def finite(make: Make, rollouts: Rollouts, show: Show) -> Check:
    return _failures("finite", "no value is infinite or NaN", "not finite", ("finite",), make, rollouts, show)


def bounded(make: Make, rollouts: Rollouts, show: Show) -> Check:
    return _failures(
        "bounds", "values lie in the declared bounds", "outside its declared bounds", ("bounds",), make, rollouts, show
    )


def one_by_one(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """Row by row (group by group) the values are those of the whole batch."""
    reward, about = make(), "a batch is scored as its rows (or groups) are by themselves"
    if reward.relation == "batch":
        return Check("one by one", about, skipped="the reward declares that a value depends on the whole batch")
    whole = values(reward, rollouts)
    parts = _parts(reward, rollouts)
    alone = torch.full_like(whole, math.nan)
    for rows in parts:
        alone[rows] = values(reward, without_padding(rollouts.rows(rows)))
    found = (
        [] if same(whole, alone) else [_differs(f"depends on {_others(reward)}", "without the other rows", whole, alone, show)]
    )
    return Check("one by one", about, found, "", len(rollouts))


def permuted(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """Another order of the rows gives the same values in that order."""
    reward = make()
    whole = values(reward, rollouts)
    order = torch.randperm(len(rollouts), generator=torch.Generator().manual_seed(0))
    for at in (order, torch.arange(len(rollouts)).flip(0)):
        back = torch.empty_like(whole)
        back[at] = values(reward, rollouts.rows(at))
        if not same(whole, back):
            found = [_differs("depends on the order of the rows", "in another order", whole, back, show)]
            return Check("order", "permuting the rows permutes the values", found, "", len(rollouts))
    return Check("order", "permuting the rows permutes the values", [], "", len(rollouts))


def unchanged(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """Nothing that a reward is given is written to."""
    given = fresh(rollouts)
    make().score(given)
    written = [k for k, f in rollouts.fields.items() if not _equal(f.values, given.fields[k].values)]
    found = [Finding("mutates what it is given", f"scoring changed the field `{k}`") for k in written]
    return Check("unchanged", "scoring changes none of its inputs", found, "", len(rollouts))


def picklable(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """It goes to other processes."""
    _, error = caught(lambda: pickle.loads(pickle.dumps(make())))
    says = "" if error is None else f"it can't be sent to another process: {type(error).__name__}: {error}"
    return Check("picklable", "it can be sent to another process", [Finding("not picklable", trimmed(says))] if says else [])


def in_time(make: Make, rollouts: Rollouts, show: Show) -> Check:
    """A row takes no longer than the declared budget, a second where none is declared."""
    reward, rows = make(), min(len(rollouts), 8)
    budget = max((n.budget for n in reward.nodes() if n.budget is not None), default=SECONDS)
    some = without_padding(rollouts.rows(_parts(reward, rollouts)[0]))
    reward.score(some)  # imports and caches are not its running time
    start = time.perf_counter()
    reward.score(some)
    took = (time.perf_counter() - start) / max(len(some), 1)
    says = f"a row takes {took:.2g} s, the budget is {budget:g} s"
    found = [Finding("too slow for its budget", says)] if took > budget else []
    late = _failures("time", "", "too slow for its budget", (), make, rollouts, show, Status.TIMEOUT).findings
    return Check("time", "a row takes no longer than its budget", found or late, "", rows)


def loud(make: Make, rollouts: Rollouts, show: Show, hangs: bool = False) -> Check:
    """A field that breaks whatever touches it makes an error of its rows: no failure is swallowed."""
    about = "what fails while scoring is an error, never a number"
    if hangs:
        return Check("loud", about, skipped="it runs in this process, and the reward does not keep to its time")
    reward, found = make(), []
    fields = sorted(n for n in reward.needs if n in rollouts.fields and rollouts.fields[n].level == "task" and n != "prompt")
    for name in fields:
        poison = [Poison(name) for _ in range(len(rollouts))]
        scores, error = caught(lambda: reward.score(rollouts.with_field(name, "task", poison)))  # noqa: B023 - called here
        if error is not None or scores is None:
            continue  # the whole batch failed, and said so
        total = scores.total
        touched = torch.tensor([p.touched for p in poison])
        quiet = touched & total.ok.any(1) & ~_leaf_failed(scores)
        if quiet.any():
            row = int(quiet.nonzero()[0])
            value = total.values[row].nan_to_num().sum().item()
            counts = f"{int(quiet.sum())} of {int(touched.sum())} rows"
            says = f"reading `{name}` raised in {counts}, and they got a value all the same, {value:g}"
            found.append(Finding("a failure is swallowed and becomes a number", says, show(row)))
    return Check("loud", about, found, "", len(fields))


def _leaf_failed(scores: Scores) -> Tensor:
    """[N] a part of the expression says itself that it failed, and another stands in for it by the expression's own rule."""
    bad = [(c.status == Status.ERROR).any(1) | (c.status == Status.TIMEOUT).any(1) for c in scores.trace.values()]
    return torch.stack(bad).any(0) if bad else torch.zeros(len(scores.mask), dtype=torch.bool)


class Poison:
    """Raises whatever is done with it, and remembers that something was."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "state", {"name": name, "touched": False})

    @property
    def touched(self) -> bool:
        return bool(object.__getattribute__(self, "state")["touched"])

    def __reduce__(self) -> Any:
        return Poison, (object.__getattribute__(self, "state")["name"],)


def _raising(method: str) -> Callable[..., Any]:
    def raises(self: Poison, *args: Any, **kwargs: Any) -> Any:
        state = object.__getattribute__(self, "state")
        state["touched"] = True
        raise PoisonTouched(f"`{state['name']}` is broken on purpose ({method})")

    return raises


class PoisonTouched(Exception):
    """What a poisoned field raises."""


METHODS = (
    "eq ne lt le gt ge hash str repr format len iter contains getitem bool int float index add radd sub rsub mul rmul truediv "
    "call getattr abs neg round mod floordiv fspath bytes complex"
)
for _name in METHODS.split():
    setattr(Poison, f"__{_name}__", _raising(f"__{_name}__"))


# ---- what the checks share


def values(reward: Reward, rollouts: Rollouts) -> Tensor:
    return total_of(reward, rollouts)


def fresh(rollouts: Rollouts) -> Rollouts:
    """The same with fields of its own, since a reward may write to what it is given."""
    return rollouts.replace(fields={k: Field(f.level, copy.deepcopy(f.values)) for k, f in rollouts.fields.items()})


def without_padding(rollouts: Rollouts) -> Rollouts:
    """The same rows, no longer than the longest of them."""
    most, stored = int(rollouts.length.max()), rollouts.action.shape[1]

    def cut(x: Any) -> Any:
        return x[:, :most] if isinstance(x, Tensor) and x.dim() > 1 and x.shape[1] == stored else x

    per_step = ("action", "mask", "log_prob", "terminated", "truncated")
    fields = {k: Field(f.level, cut(f.values) if f.level == "step" else f.values) for k, f in rollouts.fields.items()}
    levels = {k: cut(v) for k, v in rollouts.levels.items()}
    return rollouts.replace(**{k: cut(getattr(rollouts, k)) for k in per_step}, fields=fields, levels=levels)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, NaN for NaN."""
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True))


def _parts(reward: Reward, rollouts: Rollouts) -> list[Tensor]:
    """Rows that belong together by the reward's relation."""
    if reward.relation == "batch":
        return [torch.arange(len(rollouts))]
    if reward.relation == "group":
        return [(rollouts.group == g).nonzero()[:, 0] for g in rollouts.group.unique()]
    return list(torch.arange(len(rollouts)).split(1))


def _others(reward: Reward) -> str:
    return "rows of other groups" if reward.relation == "group" else "the other rows of the batch"


def _differs(names: str, when: str, a: Tensor, b: Tensor, show: Show) -> Finding:
    apart = ~torch.isclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    row = int(apart.nonzero()[0])
    says = (
        f"{int(apart.sum())} of {len(a)} rows get another value {when}; row {row}: {a[row].item():.6g}, then {b[row].item():.6g}"
    )
    return Finding(names, says, show(row))


def _failures(
    name: str,
    about: str,
    names: str,
    words: Sequence[str],
    make: Make,
    rollouts: Rollouts,
    show: Show,
    status: Status = Status.ERROR,
) -> Check:
    """Units of a part whose status is ``status`` for a reason that has one of ``words`` (none: any)."""
    scores, found = make().score(rollouts), []
    for part, c in [("total", scores.total), *scores.trace.items()]:
        for (n, k), why in c.reasons.items():
            if c.status[n, k] == status and (not words or any(w in why for w in words)):
                found.append(Finding(names, f"`{part}`, row {n}: {why}", show(n)))
                break
    return Check(name, about, found[:1], "", len(rollouts))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    result, error = caught(lambda: bool(a == b))
    return error is None and result
