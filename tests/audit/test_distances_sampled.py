# SPDX-License-Identifier: Apache-2.0
"""Sampled distances go to the exact ones, and are exactly 0 where the theory says so; agreement of totals by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guerdon.audit.distances import dard, epic, shaped, starc
from guerdon.audit.distances.agreement import bootstrapped, pairs_within, ranks, spearman_correlation
from guerdon.audit.distances.sampled import (
    Transitions,
    dard_form,
    epic_form,
    evaluated,
    pearson_distance,
    td_values,
    transitions_of,
    val_distance,
    val_forms,
)
from guerdon.errors import InputError, ShapeError
from guerdon.rewards import reward as step_reward
from guerdon.rollouts import Field, Rollouts

wide = torch.float64
S, A, GAMMA = 5, 3, 0.8


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Tensor, Tensor]:
    """(transition, one reward, another that is near it)."""
    g = torch.Generator().manual_seed(3)
    raw = torch.rand(S, A, S, generator=g, dtype=wide) ** 3
    one, other = torch.randn(2, S, A, S, generator=g, dtype=wide)
    return raw / raw.sum(-1, keepdim=True), one, one + 0.7 * other


class Sampler:
    """Draws from a table; a state is its number."""

    def __init__(self, transition: Tensor, seed: int) -> None:
        self.transition, self.g = transition, torch.Generator().manual_seed(seed)

    def uniform(self, count: int, most: int) -> Tensor:
        return torch.randint(most, (count,), generator=self.g)

    def after(self, state: Tensor, action: Tensor) -> Tensor:
        return self.transition[state, action].multinomial(1, generator=self.g)[:, 0]

    def transitions(self, count: int, possible: bool) -> Transitions:
        state, action = self.uniform(count, S), self.uniform(count, A)
        return Transitions(state, action, self.after(state, action) if possible else self.uniform(count, S))


def of(table: Tensor):
    return lambda s, a, t: table[s, a, t]


def sampled_epic(world: tuple[Tensor, Tensor, Tensor], count: int, seed: int) -> float:
    transition, one, other = world
    draw = Sampler(transition, seed)
    at, pool = draw.transitions(count, possible=False), draw.transitions(count // 4, possible=False)
    return pearson_distance(*(epic_form(of(x), at, pool, GAMMA) for x in (one, other)))


def sampled_dard(world: tuple[Tensor, Tensor, Tensor], count: int, seed: int, tried: int = 32) -> float:
    transition, one, other = world
    draw = Sampler(transition, seed)
    at = draw.transitions(count, possible=True)
    action = draw.uniform(count * tried, A)
    after, after_next = (draw.after(s.repeat_interleave(tried), action) for s in (at.observation, at.next_observation))
    tries = [x.view(count, tried) for x in (action, after, after_next)]
    return pearson_distance(*(dard_form(of(x), at, *tries, GAMMA) for x in (one, other)))


def td_forms(world: tuple[Tensor, Tensor, Tensor], x: Tensor, count: int, seed: int, branches: int = 2) -> Tensor:
    """[count, B] R + γ V(S') - V(s), V by TD on a walk of the uniform policy's steps."""
    draw = Sampler(world[0], seed)
    walked = draw.transitions(20 * count, possible=True)
    one_hot = torch.eye(S, dtype=wide)
    weights = td_values(one_hot[walked.observation], one_hot[walked.next_observation], of(x)(*vars(walked).values()), GAMMA)
    state, action = draw.uniform(count, S), draw.uniform(count, A)
    led = draw.after(state.repeat_interleave(branches), action.repeat_interleave(branches)).view(count, branches)
    return val_forms(x[state[:, None], action[:, None], led], one_hot[state], one_hot[led], weights, GAMMA)


def sampled_starc(world: tuple[Tensor, Tensor, Tensor], count: int, seed: int) -> float:
    return val_distance(*(td_forms(world, x, count, seed) for x in world[1:]))


EXACT = {
    "epic": (sampled_epic, lambda w: epic(w[1], w[2], GAMMA)),
    "dard": (sampled_dard, lambda w: dard(w[1], w[2], w[0], GAMMA)),
    "starc": (sampled_starc, lambda w: starc(w[1], w[2], w[0], GAMMA)),
}


@pytest.mark.parametrize("name", EXACT)
def test_errors_shrink_with_samples(name: str, world: tuple[Tensor, Tensor, Tensor]) -> None:
    """Root mean squares over ten seeds; sixteen times the samples, a quarter of the error, give or take."""
    sampled, exact = EXACT[name]
    right = float(exact(world))
    errors = [math.sqrt(sum((sampled(world, n, seed) - right) ** 2 for seed in range(10)) / 10) for n in (64, 1024)]
    assert errors[1] < 0.4 * errors[0] and errors[1] < 0.04, errors


def test_noise_does_not_push_starc_apart(world: tuple[Tensor, Tensor, Tensor]) -> None:
    """A hundred times the noise on both: products of different estimates stay where they were, products of the same do not."""
    transition, one, other = world
    right = float(starc(one, other, transition, GAMMA))
    forms = [td_forms(world, x, 20_000, 0, 4) for x in (one, other)]
    g = torch.Generator().manual_seed(0)
    noisy = [x + 3 * torch.randn(x.shape, generator=g, dtype=wide) for x in forms]
    assert val_distance(*noisy) == pytest.approx(right, abs=0.05)
    assert abs(val_distance(*(x[:, :1] for x in noisy)) - right) > 0.2


def test_shaping_is_exactly_invisible_whatever_the_samples(world: tuple[Tensor, Tensor, Tensor]) -> None:
    transition, one, _ = world
    potential = 10 * torch.randn(S, generator=torch.Generator().manual_seed(0), dtype=wide)
    copy = transition, one, 3 * shaped(one, potential, GAMMA)
    assert sampled_epic(copy, 20, 0) < 1e-12 and sampled_dard(copy, 20, 0, tried=2) < 1e-12
    assert sampled_starc(copy, 2000, 0) < 0.02


def test_values_by_td_are_the_exact_ones_where_every_step_is_seen_once() -> None:
    """A cycle of three states paying 1, 2, 4: V(s) = r + γ V(next) by hand. An end has no next."""
    features, paid = torch.eye(3, dtype=wide), torch.tensor([1.0, 2.0, 4.0], dtype=wide)
    value = td_values(features, features.roll(-1, 0), paid, 0.5)
    assert value[0].item() == pytest.approx((1 + 0.5 * 2 + 0.25 * 4) / (1 - 0.125))
    assert torch.allclose(value, paid + 0.5 * value.roll(-1), atol=1e-12, rtol=0)
    ended = td_values(features, features.roll(-1, 0), paid, 0.5, torch.tensor([False, False, True]))
    assert torch.allclose(ended, torch.tensor([1 + 1 + 1.0, 2 + 2.0, 4.0], dtype=wide), atol=1e-12, rtol=0)


def test_what_cannot_be_told_from_nothing_is_no_number() -> None:
    g = torch.Generator().manual_seed(1)
    noise, signal = torch.randn(2, 50, 2, generator=g, dtype=wide)
    opposite = torch.stack([noise[:, 0], -noise[:, 0]], 1)
    assert math.isnan(val_distance(opposite, signal)) and math.isnan(val_distance(signal, opposite))
    assert pearson_distance(torch.full((4,), 0.1), torch.arange(4.0)) == 0.5
    assert pearson_distance(1e-12 * torch.randn(4, generator=g), torch.zeros(4), (1e-9, 1e-9)) == 0.0
    assert math.isnan(pearson_distance(torch.tensor([1.0, math.nan]), torch.arange(2.0)))


def test_a_reward_as_a_function_of_transitions_and_transitions_of_rollouts() -> None:
    @step_reward(level="step")
    def gained(observation, next_observation):
        if observation[0] > 2:
            raise ValueError("too far")
        return next_observation[0] - observation[0]

    seen = torch.tensor([[[0.0], [1.0], [9.0]], [[2.0], [3.0], [9.0]]], dtype=wide)
    fields = {"observation": seen, "next_observation": seen + 0.25, "action": torch.zeros(2, 3)}
    rows = Rollouts(
        torch.zeros(2, 3),
        torch.tensor([[True, True, False]] * 2),
        ["a", "b"],
        fields={k: Field("step", v) for k, v in fields.items()},
    )
    at = transitions_of(rows)
    assert at.observation[:, 0].tolist() == [0, 1, 2, 3]
    found = evaluated(gained)(at.observation, at.action, at.next_observation)
    assert found[:3].tolist() == [0.25] * 3 and found[3].isnan()

    @step_reward
    def whole(step_count):
        return 1.0

    with pytest.raises(InputError, match="expected a reward of steps, got whole of the episode"):
        evaluated(whole)(at.observation, at.action, at.next_observation)


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(ShapeError, match=r"`second` should have shape \[3, 2\]"):
        val_distance(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(InputError, match="`gamma` should be"):
        td_values(torch.eye(2), torch.eye(2), torch.zeros(2), 1.0)


# ---- agreement


def test_spearman_with_ties_as_scipy_has_it() -> None:
    from scipy.stats import rankdata, spearmanr

    g = torch.Generator().manual_seed(0)
    x, y = (torch.randint(6, (40,), generator=g).double() for _ in range(2))
    assert torch.allclose(ranks(x), torch.from_numpy(rankdata(x.numpy())) - 1)
    assert spearman_correlation(x, x + y) == pytest.approx(spearmanr(x, x + y).statistic, abs=1e-12)
    assert math.isnan(spearman_correlation(x, torch.ones(40)))


def test_pairs_as_counted_one_by_one() -> None:
    g = torch.Generator().manual_seed(0)
    x, y, group = (torch.randint(n, (30,), generator=g) for n in (4, 4, 5))
    counts = [0] * 5
    for i in range(30):
        for j in range(i):
            if group[i] == group[j]:
                a, b = int((x[i] - x[j]).sign()), int((y[i] - y[j]).sign())
                kind = 0 if a * b > 0 else 1 if a * b < 0 else 2 if b else 3 if a else 4
                counts[kind] += 1
    found = pairs_within(x.double(), y.double(), group)
    assert list(found) == counts and min(counts) > 0
    assert found.disagreement == counts[1] / (counts[0] + counts[1])
    with pytest.raises(InputError, match="got NaN"):
        pairs_within(torch.tensor([math.nan]), torch.zeros(1), torch.zeros(1, dtype=torch.long))


def test_the_bootstrap_resamples_clusters_and_covers() -> None:
    """Means of 40 clusters of 5 equal rows: intervals hold the truth 19 times in 20; of single rows, they would be too sure."""
    cluster = torch.arange(200) // 5
    held, naive = 0, 0
    for seed in range(60):
        x = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=wide).repeat_interleave(5)
        for k, by in enumerate((cluster, torch.arange(200))):
            _, low, high = bootstrapped(lambda rows, x=x: float(x[rows].mean()), by, draws=200, seed=1000 + seed)
            inside = low <= 0 <= high
            held, naive = held + (inside and k == 0), naive + (inside and k == 1)
    assert held >= 52 and naive < 48
    assert math.isnan(bootstrapped(lambda rows: 1.0, torch.zeros(4, dtype=torch.long)).low)
