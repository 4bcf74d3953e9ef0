# SPDX-License-Identifier: Apache-2.0
"""The distances from transitions that were sampled, where there is no table.

    EPIC   R(s, a, s') + mean_k[γ R(s', A_k, S_k) - R(s, A_k, S_k)] - γ mean_jk R(S_j, A_k, S_k)     pairs (A_k, S_k) of a pool
    DARD   R(s, a, s') + mean_j[γ R(s', A_j, S''_j) - R(s, A_j, S'_j) - γ R(S'_j, A_j, S''_j)]       S'_j, S''_j: A_j in s, in s'
    STARC  G(s, a) - G(s), returns of the same policy with and without a as first action; or R + γ V(S') - V(s) with V by TD

With the same samples for both rewards, shaping by any potential cancels exactly in the first two, in STARC up to the horizon.
EPIC and DARD need the reward of transitions that did not happen; to STARC what happened is enough, whatever the reward reads.

Letters: M transitions where the rewards are compared, their distribution is the coverage; J, K, B samples for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.audit.distances.equivalence import check_gamma
from guerdon.errors import InputError, check_shape
from guerdon.rewards import Reward
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Status

RewardOf = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observation [K, ...], action [K, ...], next observation [K, ...]) -> [K] rewards; NaN where there is none."""


@dataclass(frozen=True)
class Transitions:
    """[M, ...] each: what was seen, done, and seen then."""

    observation: Tensor
    action: Tensor
    next_observation: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def at(self, rows: Tensor) -> Transitions:
        return Transitions(self.observation[rows], self.action[rows], self.next_observation[rows])


def transitions_of(rollouts: Rollouts) -> Transitions:
    """Every step that the policy took, row by row."""
    names = ("observation", "action", "next_observation")
    return Transitions(*(rollouts.field(name).values[rollouts.mask] for name in names))


def evaluated(reward: Reward) -> RewardOf:
    """A reward as a function of single transitions; each is a row of one step, neither terminated nor truncated."""

    def of(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        count, never = len(action), torch.zeros(len(action), 1, dtype=torch.bool)
        told = {"observation": observation, "action": action, "next_observation": next_observation}
        told = {name: x[:, None] for name, x in told.items()} | {"terminated": never, "truncated": never}
        rows = Rollouts(
            action=action[:, None],
            mask=~never,
            task=[str(i) for i in range(count)],
            log_prob=torch.zeros(count, 1, dtype=torch.float64),
            fields={name: Field("step", x) for name, x in told.items()},
        )
        return step_values(reward, rows)[:, 0]

    return of


def step_values(reward: Reward, rollouts: Rollouts) -> Tensor:
    """[N, T] float64: what the reward says of each step; NaN where it is not ok, 0 where no step was taken."""
    total = reward.score(rollouts).total
    if total.level != "step":
        raise InputError(
            f"distances: expected a reward of steps, got {reward} of the {total.level}. Usual cause: a function without "
            '@reward(level="step").'
        )
    values = torch.where(total.status == Status.OK, total.values.double(), math.nan)
    missing = rollouts.mask.shape[1] - values.shape[1]  # steps that no row has
    return torch.where(rollouts.mask, torch.nn.functional.pad(values, (0, missing)), 0.0)


# ---- EPIC and DARD


def epic_form(reward: RewardOf, at: Transitions, pool: Transitions, gamma: float) -> Tensor:
    """[M] the EPIC form at the transitions ``at``; actions and states that might have been are those of ``pool`` [K].

    Gleave et al. 2020's estimate: pairs (A_k, S_k) of the pool's actions and next states stand for D_A and D_S.

    >>> line = Transitions(torch.tensor([0.0, 1.0, 2.0]), torch.zeros(3), torch.tensor([1.0, 2.0, 0.0]))
    >>> potential = lambda s, a, t: 0.9 * t**2 - s**2
    >>> epic_form(potential, line, line, 0.9).abs().max() < 1e-6
    tensor(True)
    """
    check_gamma("epic_form", gamma)

    def mean(observation: Tensor) -> Tensor:
        count, k = len(observation), len(pool)
        asked = observation.repeat_interleave(k, 0), _tiled(pool.action, count), _tiled(pool.next_observation, count)
        return reward(*asked).view(count, k).mean(-1)

    here = reward(at.observation, at.action, at.next_observation)
    return here + gamma * mean(at.next_observation) - mean(at.observation) - gamma * mean(pool.next_observation).mean()


def dard_form(reward: RewardOf, at: Transitions, action: Tensor, after: Tensor, after_next: Tensor, gamma: float) -> Tensor:
    """[M] the DARD form at the transitions ``at``.

    ``action`` [M, J, ...]: the A_j; ``after`` [M, J, ...]: where each leads from s; ``after_next`` [M, J, ...]: from s'.
    """
    check_gamma("dard_form", gamma)
    for name, x in (("after", after), ("after_next", after_next)):
        check_shape("dard_form", name, x, (len(at), action.shape[1], *at.observation.shape[1:]))
    m, j = action.shape[:2]

    def mean(observation: Tensor, next_observation: Tensor) -> Tensor:
        return reward(observation, action.flatten(0, 1), next_observation.flatten(0, 1)).view(m, j).mean(-1)

    here = reward(at.observation, at.action, at.next_observation)
    repeated = (x.repeat_interleave(j, 0) for x in (at.next_observation, at.observation))
    ahead, behind = (mean(s, t) for s, t in zip(repeated, (after_next, after), strict=True))
    return here + gamma * ahead - behind - gamma * mean(after.flatten(0, 1), after_next)


def _tiled(x: Tensor, count: int) -> Tensor:
    return x.repeat(count, *[1] * (x.dim() - 1))


def pearson_distance(first: Tensor, second: Tensor, least: tuple[float, float] = (0.0, 0.0)) -> float:
    """√((1 - ρ) / 2) of the forms at M transitions, [M] each; ½ where one of them is constant, NaN where one has a NaN.

    ``least``: standard deviations up to which a form is constant but for rounding.

    >>> x = torch.arange(4.0)
    >>> round(pearson_distance(x, 1 - 2 * x), 9), pearson_distance(x, torch.ones(4))
    (1.0, 0.5)
    """
    check_shape("pearson_distance", "second", second, tuple(first.shape))
    sized = []
    for x, floor in zip((first.double(), second.double()), least, strict=True):
        centred = x - x.mean()
        size = centred.norm()
        sized.append(0 * x if size <= max(floor * math.sqrt(len(x)), 1e-12 * float(x.norm())) else centred / size)
    return float((sized[0] - sized[1]).norm() / 2)


# ---- STARC


def val_distance(first: Tensor, second: Tensor) -> float:
    """½ ‖s(R₁) - s(R₂)‖₂ of the VAL forms, over the coverage of M pairs (s, a), from B independent estimates of each, [M, B].

    An estimate is an advantage: the return after a, minus another return from s; or R + γ V(S') - V(s). Its noise would make
    every reward look larger than it is, and no two alike. So only different estimates are multiplied, whose noise averages to 0:

        ⟨x, y⟩ = 1 / (M B (B - 1)) Σ_i Σ_{b ≠ c} x_ib y_ic

    With B = 1 the estimates count as exact, as they are where nothing is left to chance. NaN where noise is all there is.

    >>> x = torch.tensor([[1.0, 1.0], [-2.0, -2.0]])
    >>> val_distance(x, 7 * x), val_distance(x, -x), round(val_distance(x, torch.tensor([[2.0, 2.0], [1.0, 1.0]])), 4)
    (0.0, 1.0, 0.7071)
    """
    check_shape("val_distance", "second", second, tuple(first.shape))
    x, y = first.double(), second.double()
    sizes = [_product(v, v) for v in (x, y)]
    if not all(size > 0 for size in sizes):
        return math.nan
    apart = x / math.sqrt(sizes[0]) - y / math.sqrt(sizes[1])
    return min(math.sqrt(max(_product(apart, apart), 0.0)) / 2, 1.0)


def _product(x: Tensor, y: Tensor) -> float:
    m, b = x.shape
    if b == 1:
        return float((x * y).sum() / m)
    return float((x.sum(1) * y.sum(1) - (x * y).sum(1)).sum() / (m * b * (b - 1)))


def discounted(values: Tensor, gamma: float) -> Tensor:
    """Σ_t γ^t r_t, [N], of rows ``values`` [N, T].

    >>> discounted(torch.tensor([[1.0, 2.0, 4.0]]), 0.5).tolist()
    [3.0]
    """
    check_gamma("discounted", gamma)
    return values @ gamma ** torch.arange(values.shape[1]).to(values)


def td_values(features: Tensor, next_features: Tensor, reward: Tensor, gamma: float, ended: Tensor | None = None) -> Tensor:
    """[F] weights of V(s) = w · f(s), the fixed point of SARSA's updates on the steps of one policy (least-squares TD):

        Σ_m f(s) (f(s) - γ f(s'))ᵀ w = Σ_m f(s) r

    ``features``, ``next_features`` [M, F]; ``reward`` [M]; ``ended`` [M] bool: nothing comes after. With a feature for each state
    it goes to V as M grows. Bradtke and Barto 1996.

    >>> one = torch.ones(1, 1)
    >>> td_values(one, one, torch.tensor([3.0]), 0.5).tolist()
    [6.0]
    """
    check_shape("td_values", "next_features", next_features, tuple(features.shape))
    check_shape("td_values", "reward", reward, (len(features),))
    check_gamma("td_values", gamma)
    ahead = next_features if ended is None else torch.where(ended[:, None], 0, next_features)
    matrix, right = features.T @ (features - gamma * ahead), features.T @ reward
    return torch.linalg.lstsq(matrix, right[:, None], driver="gelsd").solution[:, 0]


def val_forms(
    reward: Tensor, features: Tensor, next_features: Tensor, weights: Tensor, gamma: float, ended: Tensor | None = None
) -> Tensor:
    """R + γ V(S') - V(s), [M, B], V by ``td_values``. ``reward`` [M, B], ``features`` [M, F], ``next_features`` [M, B, F]."""
    ahead = next_features @ weights
    return reward + gamma * (ahead if ended is None else torch.where(ended, 0, ahead)) - (features @ weights)[:, None]
