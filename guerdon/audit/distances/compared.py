# SPDX-License-Identifier: Apache-2.0
"""Two rewards of steps, compared in an environment: the sampled EPIC, DARD and STARC distances, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.audit.distances.agreement import Estimate, bootstrapped
from guerdon.audit.distances.branching import Branches
from guerdon.audit.distances.sampled import (
    dard_form,
    discounted,
    epic_form,
    evaluated,
    pearson_distance,
    step_values,
    transitions_of,
    val_distance,
)
from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts

TRANSITION = frozenset({"observation", "action", "next_observation"})
"""What a reward may read to be a function of the transition alone."""

HAPPENED = TRANSITION | {"environment_reward", "terminated", "truncated"}
"""What is known of a transition that happened."""

POOL, CHECKED = 100, 200

ROUNDING = 1e-9
"""Of a reward's largest value: a form that varies less is constant."""


@dataclass(frozen=True)
class Distance:
    """A distance with its interval, or the reason why there is none. With both, the reason is one to read it with care."""

    estimate: Estimate | None
    reason: str = ""


def compared(first: Reward, second: Reward, branches: Branches, gamma: float, *, draws: int = 1000) -> dict[str, Distance]:
    """Of the names starc, epic and dard. Intervals by bootstrap over walks.

    InputError for a reward that is no function of the transition: one of turns or episodes, one that compares rows, one that
    remembers, or one that reads what an environment's steps don't have.
    """
    for reward in (first, second):
        refuse(reward)
        if reward.needs <= TRANSITION:
            _refuse_memory(reward, branches.given)
    found = {"starc": _starc(first, second, branches, gamma, draws)}
    if reading := {r: sorted(r.needs - TRANSITION) for r in (first, second) if r.needs - TRANSITION}:
        why = "; ".join(f"{r} reads {', '.join(names)}" for r, names in reading.items())
        reason = f"it needs the reward of transitions that did not happen, but {why}, which is known of those that did alone"
        return found | {"epic": Distance(None, reason), "dard": Distance(None, reason)}
    return found | _counterfactual(first, second, branches, gamma, draws)


def _starc(first: Reward, second: Reward, branches: Branches, gamma: float, draws: int) -> Distance:
    one, other = (_advantages(r, branches, gamma) for r in (first, second))
    if failed := _failed({first: one, second: other}, "branches"):
        return Distance(None, failed)
    estimate = bootstrapped(lambda rows: val_distance(one[rows], other[rows]), branches.walk, draws=draws)
    if estimate.value != estimate.value:
        return Distance(None, "one of the rewards can't be told from one that prefers no action; more --states or --branches may")
    return Distance(estimate)


def _advantages(reward: Reward, branches: Branches, gamma: float) -> Tensor:
    """[M, B] returns after the action, minus the mean return after another one with the same luck."""
    given, free = (discounted(step_values(reward, rows), gamma) for rows in (branches.given, branches.free))
    given = given.view(len(branches.at), -1)
    return given - free.view(*given.shape, -1).mean(-1)


def _counterfactual(first: Reward, second: Reward, branches: Branches, gamma: float, draws: int) -> dict[str, Distance]:
    at, going = branches.at, (~branches.ended).nonzero()[:, 0]
    pool = at.at(torch.randperm(len(at), generator=torch.Generator().manual_seed(0))[:POOL])
    action, after, after_next = (x[going] for x in (branches.action, branches.after, branches.after_next))
    of = {r: evaluated(r) for r in (first, second)}
    forms = {
        "epic": ({r: epic_form(f, at, pool, gamma) for r, f in of.items()}, branches.walk),
        "dard": ({r: dard_form(f, at.at(going), action, after, after_next, gamma) for r, f in of.items()}, branches.walk[going]),
    }
    size = {r: float(f(at.observation, at.action, at.next_observation).abs().max()) for r, f in of.items()}
    return {name: _pearson(form, size, walk, draws) for name, (form, walk) in forms.items()}


def _pearson(form: Mapping[Reward, Tensor], size: Mapping[Reward, float], walk: Tensor, draws: int) -> Distance:
    if failed := _failed(form, "transitions"):
        return Distance(None, failed)
    one, other = form.values()
    low, high = (ROUNDING * s for s in size.values())
    constant = [f"{r} is constant in this form" for r, x in form.items() if float(x.std()) <= ROUNDING * size[r]]
    estimate = bootstrapped(lambda rows: pearson_distance(one[rows], other[rows], (low, high)), walk, draws=draws)
    return Distance(estimate, "; ".join(constant))


def _failed(values: Mapping[Reward, Tensor], of: str) -> str:
    counts = {r: int(v.isnan().sum()) for r, v in values.items()}
    return "; ".join(f"{r} is not ok where {n:,} of {values[r].numel():,} {of} need it" for r, n in counts.items() if n)


# ---- what is no function of a transition


def refuse(reward: Reward) -> None:
    levels = sorted({n.level for n in reward.nodes()} - {"step"})
    unknown = sorted(reward.needs - HAPPENED)
    told = ""
    if levels:
        told = f"it has parts of the {', '.join(levels)}"
    elif reward.relation in ("group", "batch"):
        told = f"it compares a step with others of its {reward.relation}"
    elif unknown:
        told = f"it reads {', '.join(unknown)}"
    if told:
        raise InputError(
            f"distances: expected a reward of single transitions, a function of {', '.join(sorted(TRANSITION))} (or of what the "
            f"environment paid, environment_reward), but of {reward}: {told}. Usual cause: a reward of whole answers or "
            "episodes; compare those on data, with --data FILE."
        )


def _refuse_memory(reward: Reward, rows: Rollouts) -> None:
    """Steps one by one must be worth what they are worth in their episodes."""
    within = step_values(reward, rows)[rows.mask]
    some = torch.randperm(len(within), generator=torch.Generator().manual_seed(0))[:CHECKED]
    at = transitions_of(rows).at(some)
    alone = evaluated(reward)(at.observation, at.action, at.next_observation)
    close = torch.isclose(alone, within[some], rtol=1e-5, atol=1e-8, equal_nan=True)
    if not close.all():
        worst = int((alone - within[some]).abs().nan_to_num().argmax())
        raise InputError(
            f"distances: expected {reward} to say the same of a transition wherever it stands, but {int((~close).sum())} of "
            f"{len(some)} steps got another value alone than in their episode, e.g. {alone[worst]:.6g} and "
            f"{within[some][worst]:.6g}. Usual cause: .gain(), a step's index, or a function that remembers or draws at random."
        )
