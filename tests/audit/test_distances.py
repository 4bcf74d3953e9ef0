# SPDX-License-Identifier: Apache-2.0
"""Distances in tables: what they don't see, that they are distances, and what they say of regret."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guerdon.audit.distances import (
    canonical,
    dard,
    epic,
    minimal,
    redistributed,
    regret,
    shaped,
    soundness,
    starc,
    unending,
    worst_case_regret,
)
from guerdon.audit.distances.metric import norm
from guerdon.errors import InputError, ShapeError
from guerdon.worlds.tables import Table, advantages, expected_return, grid_table, optimal_policy, policy_evaluation
from guerdon.worlds.tables import shaped as shaped_table

wide = torch.float64
S, A, GAMMA = 6, 3, 0.9
ORDERS = (1, 2, math.inf)


def table(seed: int, states: int = S, actions: int = A) -> tuple[Tensor, torch.Generator]:
    """(transition, generator): sparse, as the probabilities of real tables are, with some zeros."""
    g = torch.Generator().manual_seed(seed)
    raw = torch.rand(states, actions, states, generator=g, dtype=wide) ** 4
    raw = torch.where(raw > 0.05, raw, 0) + 1e-2 * torch.eye(states, dtype=wide)[:, None]
    return raw / raw.sum(-1, keepdim=True), g


def rewards(count: int, g: torch.Generator, states: int = S, actions: int = A) -> Tensor:
    return torch.randn(count, states, actions, states, generator=g, dtype=wide)


def equivalents(reward: Tensor, transition: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """(shaped and scaled, and redistributed too), a random potential and scale for each of a batch."""
    count = len(reward)
    potential = 5 * torch.randn(count, reward.shape[-1], generator=g, dtype=wide)
    scale = 0.1 + 10 * torch.rand(count, 1, 1, 1, generator=g, dtype=wide)
    alike = scale * shaped(reward, potential, GAMMA)
    return alike, redistributed(alike, transition, 4 * rewards(count, g, *reward.shape[-3:-1]))


# ---- what they don't see


def test_zero_for_shaping_and_scale_on_a_hundred_tables() -> None:
    worst = dict.fromkeys(("starc", "minimal", "val_potential", "angle", "epic", "dard"), 0.0)
    for seed in range(100):
        transition, g = table(seed)
        one = rewards(1, g)
        other, _ = equivalents(one, transition, g)
        found = {
            "starc": max(starc(one, other, transition, GAMMA, order=p, weighted=w) for p in ORDERS for w in (False, True)),
            "minimal": starc(one, other, transition, GAMMA, form="minimal"),
            "val_potential": starc(one, other, transition, GAMMA, form="val_potential"),
            "angle": starc(one, other, transition, GAMMA, angle=True),
            "epic": epic(one, other, GAMMA),
            "dard": dard(one, other, transition, GAMMA),
        }
        worst = {k: max(v, float(found[k])) for k, v in worst.items()}
    assert max(worst.values()) < 1e-9, worst


def test_starc_alone_does_not_see_redistribution() -> None:
    """0 with val and minimal; to EPIC, DARD and all that looks at single s', the same decisions are far apart."""
    for seed in range(100):
        transition, g = table(seed)
        one = rewards(1, g)
        _, other = equivalents(one, transition, g)
        for weighted in (False, True):
            assert starc(one, other, transition, GAMMA, weighted=weighted) < 1e-9
            assert starc(one, other, transition, GAMMA, form="minimal", weighted=weighted) < 1e-9
        assert epic(one, other, GAMMA) > 0.1 and dard(one, other, transition, GAMMA) > 0.1
        assert starc(one, other, transition, GAMMA, form="val_potential") > 0.1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_minimal_of_every_norm_is_one_of_the_class_and_no_larger_than_others_of_it(order: float, weighted: bool) -> None:
    transition, g = table(7)
    one = rewards(2, g)
    form = minimal(one, transition, GAMMA, order=order, weighted=weighted)
    _, other = equivalents(one, transition, g)
    assert (starc(one, form, transition, GAMMA) < 1e-9).all()  # equivalent, and starc with val sees nothing else
    assert (starc(one, other, transition, GAMMA, form="minimal", order=order, weighted=weighted) < 1e-9).all()
    weight = transition if weighted else None
    size = norm(form, order, weight)
    for seed in range(50):
        g = torch.Generator().manual_seed(seed)
        step = 10.0 ** -(seed % 4)
        near = shaped(form, step * torch.randn(2, S, generator=g, dtype=wide), GAMMA)
        near = redistributed(near, transition, step * rewards(2, g))
        assert (norm(near, order, weight) >= size - 1e-9).all()
    assert (size <= norm(canonical.val(one, transition, GAMMA), order, weight) + 1e-12).all()


def test_minimal_of_weight_tau_by_a_general_least_squares_solver() -> None:
    """Potential and redistribution as unknowns of one large problem, without the reasoning that makes it small."""
    transition, g = table(3, 3, 2)
    reward = rewards(1, g, 3, 2)[0]
    units = torch.eye(18, dtype=wide).view(18, 3, 2, 3)
    columns = [shaped(torch.zeros_like(reward), e, GAMMA) for e in torch.eye(3, dtype=wide)]
    columns += [redistributed(torch.zeros_like(reward), transition, e) for e in units]
    for weighted in (False, True):
        root = (transition if weighted else torch.ones_like(transition)).sqrt().flatten()
        x = root[:, None] * torch.stack([c.flatten() for c in columns], 1)
        y = root * reward.flatten()
        smallest = y - x @ (torch.linalg.pinv(x) @ y)
        form = minimal(reward, transition, GAMMA, weighted=weighted)
        assert torch.allclose(root * form.flatten(), smallest, atol=1e-9, rtol=0)


# ---- that they are distances


def every(transition: Tensor) -> dict[str, object]:
    def of(**settings: object):
        return lambda a, b: starc(a, b, transition, GAMMA, **settings)

    found = {f"{form} L{p}": of(form=form, order=p) for form in ("val", "val_potential", "none") for p in ORDERS}
    found |= {f"{form} L{p} of τ": of(form=form, order=p, weighted=True) for form in ("val", "epic", "dard") for p in ORDERS}
    found |= {"minimal": of(form="minimal"), "minimal L1": of(form="minimal", order=1), "angle": of(angle=True)}
    return found | {"epic": lambda a, b: epic(a, b, GAMMA), "dard": lambda a, b: dard(a, b, transition, GAMMA)}


def test_symmetry_triangle_and_range() -> None:
    transition, g = table(11)
    x, y, z = (rewards(40, g) for _ in range(3))
    y = x + 0.3 * y  # near ones too
    for name, d in every(transition).items():
        xy, yx, yz, xz = d(x, y), d(y, x), d(y, z), d(x, z)
        assert torch.allclose(xy, yx, atol=1e-12, rtol=0), name
        assert (xz <= xy + yz + 1e-12).all() and (xy <= xz + yz + 1e-12).all(), name
        assert all((v >= 0).all() and (v <= 1 + 1e-12).all() for v in (xy, yz, xz)), name
        assert (d(x, x) < 1e-9).all() and xy.min() > 1e-3, name
        if "L" not in name or "minimal" in name or "L2" in name:
            assert torch.allclose(d(x, -x), torch.ones(40, dtype=wide)), name


def test_a_reward_without_preferences_is_a_half_from_every_other_and_nothing_from_its_like() -> None:
    transition, g = table(5)
    one = rewards(1, g)
    nothing = shaped(torch.zeros(1, S, A, S, dtype=wide), 100 * torch.randn(1, S, generator=g, dtype=wide), GAMMA)
    for name, d in every(transition).items():
        if "none" in name:
            continue
        assert d(one, nothing).item() == pytest.approx(0.5), name
        assert d(nothing, 2 * nothing).item() == 0, name


def test_epic_is_half_the_l2_of_standardised_forms_and_root_one_minus_rho() -> None:
    transition, g = table(2)
    one, other = rewards(2, g)
    forms = [canonical.epic(x, GAMMA).flatten() for x in (one, other)]
    rho = torch.corrcoef(torch.stack(forms))[0, 1]
    assert epic(one, other, GAMMA).item() == pytest.approx(math.sqrt((1 - rho) / 2), abs=1e-12)
    assert starc(one, other, transition, GAMMA, form="epic").item() == pytest.approx(epic(one, other, GAMMA).item(), abs=1e-12)


def test_val_is_the_advantage_and_keeps_the_order_of_policies() -> None:
    maze = grid_table("S..\n.#.\n..G", gamma=0.9, slip=0.2)
    reward, transition = unending(maze)
    uniform = torch.full((maze.states, 4), 0.25, dtype=wide)
    assert torch.allclose(canonical.val(reward, transition, 0.9)[..., 0], advantages(maze, uniform), atol=1e-12, rtol=0)
    value = canonical.values(reward, transition, 0.9, optimal_policy(maze))
    assert torch.allclose(value, policy_evaluation(maze, optimal_policy(maze)), atol=1e-12, rtol=0)
    g = torch.Generator().manual_seed(0)
    potential = torch.where(maze.terminal, 0, torch.randn(maze.states, generator=g, dtype=wide))
    moved, everywhere = unending(shaped_table(maze, potential))[0], shaped(reward, potential, 0.9)
    assert starc(reward, moved, transition, 0.9) < 1e-9 and starc(reward, everywhere, transition, 0.9) < 1e-9
    assert epic(reward, everywhere, 0.9) < 1e-9
    assert epic(reward, moved, 0.9) > 0.3  # it also asks what leaving the goal pays, and no episode's shaping says that
    for name in ("val", "val_potential", "minimal"):
        form = minimal(reward, transition, 0.9) if name == "minimal" else getattr(canonical, name)(reward, transition, 0.9)
        apart = []
        for _ in range(5):
            policy = torch.rand(maze.states, 4, generator=g, dtype=wide)
            policy = policy / policy.sum(-1, keepdim=True)
            both = [Table(transition, x, maze.start, 0.9, torch.zeros(maze.states, dtype=torch.bool)) for x in (reward, form)]
            apart.append(expected_return(both[0], policy) - expected_return(both[1], policy))
        assert max(apart) - min(apart) < 1e-10, name  # the return moves by one number, the same for all policies


# ---- what they say of regret


def small(seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    transition, g = table(seed, 3, 2)
    start = 0.2 + torch.rand(3, generator=g, dtype=wide)
    return transition, start / start.sum(), g


def test_worst_case_regret_is_at_most_u_times_starc_and_not_arbitrarily_less() -> None:
    """U in closed form. From below: however near two rewards are, the worst regret stays a share of their distance."""
    gamma, ratios, tightest = 0.5, [], 0.0
    for seed in range(25):
        transition, start, g = small(seed)
        bound = soundness(gamma, start, 2)
        one, noise = rewards(2, g, 3, 2)
        for near in (1e-4, 1e-2, 0.1, 1.0, 10.0):
            other = one + near * noise
            d, worst = float(starc(one, other, transition, gamma)), worst_case_regret(one, other, transition, gamma, start)
            assert worst <= bound * d + 1e-9
            ratios.append(worst / d)
            tightest = max(tightest, worst / (bound * d))
            assert float(regret(one, other, transition, gamma, start)) <= worst + 1e-9
    assert min(ratios) > 0.3 and tightest > 0.05


def test_no_regret_between_equivalent_rewards_and_all_of_it_between_opposite_ones() -> None:
    transition, start, g = small(1)
    one = rewards(1, g, 3, 2)
    _, other = equivalents(one, transition, g)
    assert worst_case_regret(one[0], other[0], transition, GAMMA, start) < 1e-7
    assert regret(one, other, transition, GAMMA, start).item() < 1e-9
    assert worst_case_regret(one[0], -one[0], transition, GAMMA, start) == pytest.approx(1)
    assert regret(one, -one, transition, GAMMA, start).item() == pytest.approx(1)
    assert regret(0 * one, one, transition, GAMMA, start).item() == 0


def test_regret_by_enumerating_every_policy() -> None:
    transition, start, g = small(4)
    one, other = rewards(2, g, 3, 2)
    returns = []
    for number in range(8):
        actions = torch.tensor([number >> s & 1 for s in range(3)])
        policy = torch.nn.functional.one_hot(actions, 2).to(wide)
        returns.append([float(canonical.values(x, transition, GAMMA, policy) @ start) for x in (one, other)])
    of_one, of_other = torch.tensor(returns, dtype=wide).unbind(1)
    expected = (of_one.max() - of_one[of_other.argmax()]) / (of_one.max() - of_one.min())
    assert regret(one, other, transition, GAMMA, start).item() == pytest.approx(expected.item())
    assert worst_case_regret(one, other, transition, GAMMA, start) >= expected.item() - 1e-9


def test_a_small_epic_distance_with_all_the_regret() -> None:
    """Two rewards agree loudly on what cannot happen, and on nothing that can. Redistribution takes in DARD too."""
    transition = torch.zeros(4, 2, 4, dtype=wide)
    for s in range(4):
        transition[s, 0, s] = transition[s, 1, (s + 1) % 4] = 1
    g = torch.Generator().manual_seed(0)
    start, pays = torch.full((4,), 0.25, dtype=wide), torch.randn(4, 2, 1, generator=g, dtype=wide).expand(4, 2, 4)
    loud = torch.where(transition > 0, 0, 100 * torch.randn(4, 2, 4, generator=g, dtype=wide))
    one, other = loud + pays, loud - pays
    assert regret(one, other, transition, GAMMA, start).item() == pytest.approx(1)
    assert epic(one, other, GAMMA) < 0.03 and starc(one, other, transition, GAMMA).item() == pytest.approx(1)
    mixed, g = table(0)
    pays, noise = torch.randn(2, S, A, S, generator=g, dtype=wide)
    pays = pays[..., :1].expand(S, A, S)
    one, other = (redistributed(x, mixed, 300 * noise) for x in (pays, -pays))
    start = torch.full((S,), 1 / S, dtype=wide)
    assert regret(one, other, mixed, GAMMA, start).item() == pytest.approx(1)
    assert dard(one, other, mixed, GAMMA) < 0.03 and starc(one, other, mixed, GAMMA).item() == pytest.approx(1)


# ---- mistakes


def test_what_is_refused() -> None:
    transition, g = table(0)
    one = rewards(1, g)
    with pytest.raises(InputError, match="`gamma` should be at least 0 and below 1, got 1"):
        starc(one, one, transition, 1.0)
    with pytest.raises(ShapeError, match="`reward` should have shape"):
        starc(one[..., :1], one, transition, GAMMA)
    with pytest.raises(InputError, match="`form` should be one of val, val_potential, minimal, epic, dard, none"):
        starc(one, one, transition, GAMMA, form="vall")
    with pytest.raises(InputError, match="the angle belongs to order 2"):
        starc(one, one, transition, GAMMA, order=1, angle=True)
    with pytest.raises(InputError, match="`order` should be 1, 2 or inf, got 3"):
        minimal(one, transition, GAMMA, order=3)
