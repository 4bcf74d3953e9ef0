# SPDX-License-Identifier: Apache-2.0
"""FlowPolicy: its rollouts, their probabilities, forks, and training by the loop that trains every other policy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from guerdon.credit import group_relative
from guerdon.errors import CheckpointError, InputError
from guerdon.objectives import clipped_surrogate, kl_penalty, token_mean
from guerdon.objectives.flow import exact_kl, flow_matching
from guerdon.policies.flow import Denoising, FlowPolicy, stochastic
from guerdon.policies.flow_step import sde_mean, sde_std
from guerdon.protocols import Context, Policy
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Field, Rollouts
from guerdon.training.binding import bind
from guerdon.training.loop import train
from guerdon.training.noised import Noised
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts

STEP_FIELDS = ("latent", "time", "time_step", "sigma", "label")


def policy_of(**settings: Any) -> FlowPolicy:
    return FlowPolicy(3, labels=2, width=16, dtype=torch.float64, **settings)


def contexts(count: int) -> list[Context]:
    return [Context(f"t{i % 2}", i % 2, {"hue": i}, index=i, group=i % 2) for i in range(count)]


def value_of(rollouts: Rollouts, name: str) -> Tensor:
    return rollouts.field(name).values


def test_it_is_a_policy() -> None:
    assert isinstance(policy_of(), Policy)


def test_rows_are_chains() -> None:
    drawn = policy_of().sample(contexts(4), stochastic(5, look_ahead=5), seed=0)
    latent, clean, after = (value_of(drawn, k) for k in ("latent", "clean", "next_clean"))
    assert drawn.action.shape == (4, 5, 3) and drawn.mask.all()
    assert torch.equal(latent[:, 1:], drawn.action[:, :-1])
    assert torch.equal(value_of(drawn, "sample")[:, 0], drawn.action[:, -1])
    assert torch.equal(clean[:, 1:], after[:, :-1]) and torch.equal(after[:, -1], drawn.action[:, -1])
    assert drawn.terminated.tolist() == [[False] * 4 + [True]] * 4
    assert value_of(drawn, "hue") == [0, 1, 2, 3] and value_of(drawn, "prompt") == [0, 1, 0, 1]
    assert drawn.group.tolist() == [0, 1, 0, 1]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    policy, sampling = policy_of(), stochastic(4)
    together = policy.sample(contexts(4), sampling, seed=3)
    alone = policy.sample(contexts(4)[2:3], sampling, seed=3)
    torch.testing.assert_close(alone.action[0], together.action[2], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(policy.sample(contexts(4), sampling, seed=4).action, together.action)


def test_every_step_has_normal_noise_of_its_own() -> None:
    """What is left of a step after its mean, in deviations: independent standard normal numbers, as at the start."""
    policy = policy_of()
    many = [Context("a", 0, index=i) for i in range(4000)]
    drawn = policy.sample(many, stochastic(3), seed=0)
    latent, time, dt, sigma, _ = (value_of(drawn, k) for k in STEP_FIELDS)
    mean = sde_mean(latent, policy.evaluate(drawn, frozenset({"velocity"}))["velocity"], time, dt, sigma)
    left = ((drawn.action - mean) / sde_std(dt, sigma)[..., None]).detach()
    numbers = torch.cat([latent[:, :1], left], 1).reshape(4000, 12)
    torch.testing.assert_close(numbers.T.cov(), torch.eye(12, dtype=torch.float64), rtol=0, atol=0.1)
    assert numbers.mean(0).abs().max() < 0.07
    assert (numbers.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.01)


def test_probabilities_are_those_of_the_steps_taken() -> None:
    policy = policy_of(reference=True)
    for p in policy.network.parameters():
        p.data.add_(0.01 * torch.ones_like(p))  # away from the reference
    drawn = policy.sample(contexts(4), stochastic(5), seed=0)
    found = policy.evaluate(drawn, policy.outputs)
    latent, time, dt, sigma, _ = (value_of(drawn, k) for k in STEP_FIELDS)
    std = sde_std(dt, sigma)[..., None]
    normal, reference = (Normal(sde_mean(latent, found[k], time, dt, sigma), std) for k in ("velocity", "ref_velocity"))
    torch.testing.assert_close(found["log_prob"], normal.log_prob(drawn.action).sum(-1))
    torch.testing.assert_close(found["log_prob"], drawn.log_prob)
    torch.testing.assert_close(found["ref_log_prob"], reference.log_prob(drawn.action).sum(-1))
    torch.testing.assert_close(found["kl"], kl_divergence(normal, reference).sum(-1))
    torch.testing.assert_close(found["entropy"], normal.entropy().sum(-1))
    assert (found["kl"] > 0).all()
    assert set(policy.evaluate(drawn, frozenset({"kl"}))) == {"kl"}


def test_single_steps_evaluate_as_in_their_row() -> None:
    policy = policy_of()
    drawn = policy.sample(contexts(3), stochastic(4), seed=0)
    row, step = torch.tensor([2, 0, 1]), torch.tensor([1, 3, 0])
    one = Rollouts(
        action=drawn.action[row, step][:, None],
        mask=torch.ones(3, 1, dtype=torch.bool),
        task=["a"] * 3,
        fields={k: Field("step", value_of(drawn, k)[row, step][:, None]) for k in STEP_FIELDS},
    )
    alone = policy.evaluate(one, frozenset({"log_prob"}))["log_prob"]
    torch.testing.assert_close(alone[:, 0], drawn.log_prob[row, step])  # type: ignore[index]


def test_what_stands_in_masked_places_has_no_effect() -> None:
    policy = policy_of(reference=True)
    drawn = policy.sample(contexts(2), stochastic(3), seed=0)
    mask = torch.tensor([[True, True, False], [False, True, True]])
    rows = drawn.replace(
        mask=mask,
        action=torch.where(mask[..., None], drawn.action, torch.nan),
        fields={
            k: Field("step", torch.where(mask.reshape(2, 3, *[1] * (f.values.dim() - 2)), f.values, torch.nan))
            if k in STEP_FIELDS and f.values.is_floating_point()
            else f
            for k, f in drawn.fields.items()
        },
    )
    want = frozenset({"log_prob", "entropy", "kl"})
    gradients = []
    for batch in (drawn, rows):
        found = policy.evaluate(batch, want)
        if batch is rows:
            assert all((found[k][~mask] == 0).all() for k in want)
        total = torch.stack([found[k][mask].sum() for k in sorted(want)]).sum()
        gradients.append(torch.autograd.grad(total, list(policy.network.parameters())))
    for plain, holed in zip(*gradients, strict=True):
        torch.testing.assert_close(holed, plain)


def test_the_gradient_is_that_of_finite_differences() -> None:
    policy = policy_of()
    drawn = policy.sample(contexts(3), stochastic(3), seed=0)
    weight = next(policy.network.parameters())

    def total() -> Tensor:
        return policy.evaluate(drawn, frozenset({"log_prob"}))["log_prob"].sum()

    (gradient,) = torch.autograd.grad(total(), weight)
    for at in ((0, 0), (7, 2), (3, 5)):
        values = []
        for move in (1e-6, -1e-6):
            with torch.no_grad():
                weight[at] += move
                values.append(total().item())
                weight[at] -= move
        assert gradient[at].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_without_noise_nothing_is_drawn() -> None:
    policy = policy_of()
    drawn = policy.sample(contexts(2), Denoising(6, look_ahead=6), seed=0)
    assert drawn.log_prob is None
    assert (policy.evaluate(drawn, frozenset({"log_prob"}))["log_prob"] == 0).all()
    led_to = value_of(drawn, "clean")
    torch.testing.assert_close(led_to, drawn.action[:, -1:].expand_as(led_to))  # every latent leads to the sample
    assert Denoising(6, look_ahead=2).evaluations == 6 + 2 * 5 + 1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 2, "sigma": (0.1,)}, {"steps": 1, "sigma": (-0.1,)}, {"look_ahead": -1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Denoising"):
        Denoising(**wrong)


@pytest.mark.parametrize("label", [2, -1, "a", True, None])
def test_a_label_that_there_is_not_is_refused(label: Any) -> None:
    with pytest.raises(InputError, match="label from 0 to 1"):
        policy_of().sample([Context("a", label)], stochastic(2), seed=0)


# ---- forks


def test_forks_share_their_prefix_and_nothing_else() -> None:
    policy = policy_of()
    drawn = policy.sample(contexts(3), stochastic(5, look_ahead=5), seed=0)
    forked = policy.fork(drawn, [(1, 2), (1, 2), (2, 0)], index=[10, 11, 12], seed=0)
    assert forked.parent.tolist() == [[1, 2], [1, 2], [2, 0]]
    assert torch.equal(forked.action[:2, :2], drawn.action[[1, 1], :2])
    assert torch.equal(value_of(forked, "latent")[:, 0], value_of(drawn, "latent")[[1, 1, 2], 0])
    assert forked.mask.tolist() == [[False, False, True, True, True]] * 2 + [[True] * 5]
    assert not torch.allclose(forked.action[0, 2], forked.action[1, 2])
    assert forked.group.tolist() == [1, 1, 0] and forked.task == ["t1", "t1", "t0"]
    found = policy.evaluate(forked, frozenset({"log_prob"}))["log_prob"]
    torch.testing.assert_close(found, forked.log_prob)
    assert (forked.log_prob[:2, :2] == 0).all()  # type: ignore[index]
    torch.testing.assert_close(value_of(forked, "clean")[:2, :3], value_of(drawn, "clean")[[1, 1], :3])
    torch.testing.assert_close(value_of(forked, "next_clean")[:, -1], forked.action[:, -1])


def test_a_fork_with_the_rows_own_stream_is_the_row() -> None:
    policy = policy_of()
    drawn = policy.sample(contexts(3), stochastic(5), seed=0)
    again = policy.fork(drawn, [(2, 1)], index=[2], seed=0)
    torch.testing.assert_close(again.action[0], drawn.action[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [(3, 0), (0, 5)])
def test_a_fork_where_there_is_nothing_is_refused(place: tuple[int, int]) -> None:
    policy = policy_of()
    with pytest.raises(InputError, match="places within 3 rows of 5 steps"):
        policy.fork(policy.sample(contexts(3), stochastic(5), seed=0), [place], index=[0], seed=0)


# ---- files


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    policy = policy_of(seed=4)
    policy.save(tmp_path)
    again = FlowPolicy.load(tmp_path, dtype=torch.float64, reference=True)
    drawn = policy.sample(contexts(2), stochastic(3), seed=0)
    found = again.evaluate(drawn, frozenset({"log_prob", "kl"}))
    torch.testing.assert_close(found["log_prob"], drawn.log_prob)
    assert (found["kl"] == 0).all()
    with pytest.raises(CheckpointError, match=r"flow\.json"):
        FlowPolicy.load(tmp_path / "nowhere")


def test_the_state_holds_the_reference() -> None:
    policy, other = policy_of(seed=1, reference=True), policy_of(seed=2, reference=True)
    other.load_state_dict(policy.state_dict())
    drawn = policy.sample(contexts(2), stochastic(3), seed=0)
    want = frozenset({"log_prob", "ref_log_prob"})
    for k, v in policy.evaluate(drawn, want).items():
        assert torch.equal(other.evaluate(drawn, want)[k], v)
    with pytest.raises(CheckpointError, match="differs in"):
        policy_of().load_state_dict(policy.state_dict())


# ---- learning


def recipe(policy: FlowPolicy, stage: Stage) -> Recipe:
    return Recipe("flow", lambda: policy, [stage], checkpoint_every=10_000, save_rollouts_every=0)


def test_flow_matching_learns_a_density_by_the_loop(tmp_path: Path) -> None:
    """Two normal classes; after training the deterministic flow draws from the one that is asked for."""
    g = torch.Generator().manual_seed(0)
    label = torch.randint(2, (4000,), generator=g)
    data = torch.where(label == 0, -1.0, 2.0)[:, None] + 0.3 * torch.randn(4000, 1, generator=g)
    policy = FlowPolicy(1, labels=2, width=32)
    source = Noised(data, 256, {"label": label})
    stage = Stage("match", 400, source, [Term(1.0, flow_matching, token_mean)], lr=lambda s: 5e-3 * (1 - s / 400))
    train(recipe(policy, stage), tmp_path)
    drawn = policy.sample([Context("c", i % 2, index=i) for i in range(2000)], Denoising(50), seed=0)
    x = value_of(drawn, "sample")[:, 0, 0].reshape(-1, 2)
    assert x.mean(0).tolist() == pytest.approx([-1.0, 2.0], abs=0.08)
    assert x.std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.08)


def test_noised_data_depend_on_seed_and_step_alone() -> None:
    source = Noised(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), 8)
    first, again, other = (source.batch(step, None, 5).rollouts for step in (3, 3, 4))
    for k in ("latent", "time", "target_velocity"):
        assert torch.equal(value_of(first, k), value_of(again, k))
        assert not torch.equal(value_of(first, k), value_of(other, k))
    clean = value_of(first, "latent") - value_of(first, "time")[..., None] * value_of(first, "target_velocity")
    torch.testing.assert_close(clean, first.action, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="Noised"):
        Noised(torch.zeros(4, 2), 2, {"label": torch.zeros(3)})


@tensor_reward()
def far_right(rollouts: Rollouts) -> Tensor:
    return rollouts.field("sample").values[:, 0, 0]


@pytest.mark.parametrize("level", [None, "step"])
def test_the_loop_of_text_trains_it(tmp_path: Path, level: str | None) -> None:
    """`group_relative`, `clipped_surrogate` and `kl_penalty` as they are: samples move to the right."""
    policy = FlowPolicy(2, width=16, reference=True)
    before = copy.deepcopy(policy)
    many = [Context("a", None, index=i) for i in range(400)]
    credit = bind(group_relative, scale="std", level=level) if level else bind(group_relative, scale="std")
    terms = [Term(1.0, clipped_surrogate, token_mean), Term(0.01, exact_kl, token_mean), Term(0.01, kl_penalty, token_mean)]
    source = Prompts([Context("a", None)], 1, 32, stochastic(6))
    train(recipe(policy, Stage("rl", 25, source, terms, far_right, credit, rounds=2, lr=3e-3)), tmp_path)
    x = [value_of(p.sample(many, Denoising(10), seed=9), "sample")[:, 0, 0].mean().item() for p in (before, policy)]
    assert x[1] > x[0] + 0.5
