# SPDX-License-Identifier: Apache-2.0
"""The control policy: its numbers against torch.distributions, what masks do, and what is kept on disk."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal

from guerdon.errors import CheckpointError, GuerdonError, InputError
from guerdon.policies.action_distribution import Categorical, Gaussian, distribution_of
from guerdon.policies.actor_critic import ActorCritic, through
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Field, Rollouts

ALL = frozenset({"log_prob", "entropy", "value", "next_value"})
BOX = gym.spaces.Box(-1, 1, (3,))


def discrete(**settings) -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(3, Categorical(4, start=2), hidden=(8, 8), **settings)


def gaussian(**settings) -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(3, Gaussian((-1.0,) * 2, (1.0,) * 2, (2,)), hidden=(8, 8), log_std=-0.3, **settings)


BOTH = pytest.mark.parametrize("make", [discrete, gaussian])


def acted(policy: ActorCritic, n: int = 3, t: int = 5, seed: int = 0) -> Rollouts:
    """Rollouts of observations drawn at random."""
    rng = np.random.default_rng(seed)
    observation = rng.standard_normal((t + 1, n, 3)).astype(np.float32)
    noise = np.stack([policy.noise(np.random.default_rng([seed, i]), t) for i in range(n)], 1)
    done = [policy.act(observation[i], noise[i]) for i in range(t)]
    rows = {k: torch.tensor(np.stack([getattr(a, k) for a in done], 1)) for k in ("action", "log_prob")}
    fields = {"observation": observation[:-1], "next_observation": observation[1:]}
    return Rollouts(
        mask=torch.ones(n, t, dtype=torch.bool),
        task=[str(i) for i in range(n)],
        fields={k: Field("step", torch.tensor(x.swapaxes(0, 1).copy())) for k, x in fields.items()},
        **rows,
    )


def torch_distribution(policy: ActorCritic, x: torch.Tensor):
    head = through(policy.actor, x)
    if isinstance(policy.actions, Categorical):
        return TorchCategorical(logits=head)
    return Independent(Normal(head, policy.log_std.exp()), 1)


@BOTH
@pytest.mark.parametrize("hidden", [(), (6,), (8, 5)])
def test_outputs_and_their_gradient_are_those_of_pytorchs_layers(make, hidden) -> None:
    policy = make(dtype=torch.float64)
    policy = ActorCritic(3, policy.actions, hidden=hidden, log_std=-0.3, dtype=torch.float64)
    with torch.no_grad():
        policy.flat.add_(torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(1)))
    r, names = acted(policy), ("entropy", "log_prob", "value")
    x = r.field("observation").values.double()
    found, expected = policy.evaluate(r, frozenset(names)), policy.by_torch(x, r.action, names)
    weights = [torch.randn(3, 5, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(3)]
    for some in ([0], [1], [2], [0, 1, 2]):  # each output alone too: what isn't used has no gradient
        losses = [sum((out[i] * weights[i]).sum() for i in some) for out in ([found[n] for n in names], expected)]
        a, b = (torch.autograd.grad(loss, policy.flat, retain_graph=True)[0] for loss in losses)
        assert torch.allclose(losses[0], losses[1], rtol=1e-12) and torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@BOTH
def test_the_updater_takes_the_gradient_without_a_walk_of_the_graph(make, monkeypatch) -> None:
    policy = make(dtype=torch.float64)
    r, updater = acted(policy), policy.updater(lr=0.1)
    g = torch.Generator().manual_seed(1)
    given = {k: torch.randn(3, 5, generator=g, dtype=torch.float64) for k in ("log_prob", "entropy", "value", "next_value")}
    own = {k: x for k, x in given.items() if k != "next_value"}

    def expected(names) -> torch.Tensor:
        out = policy.evaluate(r, ALL)
        return torch.autograd.grad(sum((out[k] * given[k]).sum() for k in names), policy.flat)[0]

    for names in (given, ["next_value"]):  # of two passes, or of a second one: through the graph
        updater.accumulate(policy.evaluate(r, ALL), {k: given[k] for k in names})
        assert torch.allclose(updater.take_gradient(), expected(names), rtol=1e-12, atol=1e-14)
    other = make(dtype=torch.float64)
    updater.accumulate(other.evaluate(r, ALL), own)  # of another policy: its gradient, not this one's
    assert policy.flat.grad is None and torch.allclose(other.flat.grad, expected(own), rtol=1e-12, atol=1e-14)
    both = expected(own) + expected(["log_prob"])
    monkeypatch.setattr(torch.autograd, "backward", None)
    updater.accumulate(policy.evaluate(r, ALL), own)
    updater.accumulate(policy.evaluate(r, frozenset({"log_prob"})), {"log_prob": given["log_prob"]})
    assert torch.allclose(updater.take_gradient(), both, rtol=1e-12, atol=1e-14)
    updater.accumulate(policy.evaluate(r, ALL), {"value": torch.full((3, 5), torch.nan, dtype=torch.float64)})
    with pytest.raises(GuerdonError, match="in 1 of 1 parameters, first flat"):
        updater.step()
    with pytest.raises(InputError, match="a gradient for q, but the outputs are"):
        updater.accumulate(policy.evaluate(r, ALL), {"q": given["value"]})


@pytest.mark.parametrize(
    "settings", [{"optimiser": "adam", "eps": 1e-5}, {"optimiser": "adam", "amsgrad": True}, {"optimiser": "adamw"}]
)
def test_the_updater_steps_as_the_optimiser_does(settings) -> None:
    policy, plain = discrete(), discrete()
    updater, expected = (
        policy.updater(weight_decay=0.1, **settings),
        GradientUpdater(plain.parameters(), lr=3e-4, weight_decay=0.1, **settings),
    )
    for i in range(5):
        if i == 3:  # goes on from what was kept
            kept, updater = updater.state_dict(), policy.updater(**settings)
            updater.load_state_dict(kept)
        for p, u in ((policy, updater), (plain, expected)):
            u.accumulate(p.evaluate(acted(plain), ALL), {"log_prob": torch.full((3, 5), i - 1.5), "value": torch.ones(3, 5)})
        assert updater.step(lr=0.01 * i) == expected.step(lr=0.01 * i)
        assert torch.equal(policy.flat, plain.flat)
    a, b = updater.state_dict(), expected.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(x, b[k]) for k, x in a.items())


def test_a_copy_is_apart_and_whole() -> None:
    policy = discrete()
    policy.act(np.zeros((1, 3), np.float32), np.full(1, 0.5))  # arrays are there already
    other, kept = copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))
    with torch.no_grad():
        other.flat.copy_(torch.arange(len(other.flat)) / len(other.flat))
    head, unchanged = (p.by_torch(torch.ones(1, 1, 3), torch.full((1, 1), 2), ("log_prob",))[0] for p in (other, policy))
    assert other.act(np.ones((1, 3), np.float32), np.full(1, 0.0)).log_prob == pytest.approx(head.item(), abs=1e-6)
    assert policy.act(np.ones((1, 3), np.float32), np.full(1, 0.0)).log_prob == pytest.approx(unchanged.item(), abs=1e-6)
    assert torch.equal(other.actor[0][0].flatten(), other.flat[: 8 * 3].detach()) and torch.equal(kept.flat, policy.flat)


def test_parameters_that_change_between_an_output_and_its_gradient_are_an_error() -> None:
    policy = discrete()
    out = policy.evaluate(acted(policy), frozenset({"value"}))["value"].sum()
    with torch.no_grad():
        policy.flat.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@BOTH
def test_outputs_are_those_of_the_distribution(make) -> None:
    policy = make(dtype=torch.float64)
    r = acted(policy)
    x = r.field("observation").values.double()
    out, of = policy.evaluate(r, ALL), torch_distribution(policy, x)
    action = r.action - 2 if isinstance(policy.actions, Categorical) else r.action
    assert torch.allclose(out["log_prob"], of.log_prob(action), atol=1e-12)
    assert torch.allclose(out["entropy"], of.entropy().expand(3, 5), atol=1e-12)
    assert torch.allclose(out["log_prob"], r.log_prob, atol=1e-6)
    assert torch.allclose(out["value"][:, 1:], out["next_value"][:, :-1], atol=1e-12)
    assert {k: (v.dtype, tuple(v.shape)) for k, v in out.items()} == dict.fromkeys(ALL, (torch.float64, (3, 5)))


@BOTH
def test_what_is_drawn_follows_the_distribution(make) -> None:
    policy = make()
    with torch.no_grad():
        policy.actor[-1][0].mul_(100)
    observation = np.repeat(np.array([[0.5, -1.0, 2.0]], np.float32), 40_000, 0)
    action = policy.act(observation, policy.noise(np.random.default_rng(1), 40_000)).action
    of = torch_distribution(policy, torch.tensor(observation[:1]))
    if isinstance(policy.actions, Categorical):
        share = np.bincount(action - 2, minlength=4) / len(action)
        assert share == pytest.approx(of.probs[0].detach().numpy(), abs=0.01)
    else:
        assert action.mean(0) == pytest.approx(of.mean[0].detach().numpy(), abs=0.02)
        assert action.std(0) == pytest.approx(np.exp([-0.3, -0.3]), abs=0.02)
    greedy = policy.act(observation[:1], policy.noise(np.random.default_rng(0), 1), greedy=True)
    best, start = (of.probs.argmax(-1), 2) if isinstance(of, TorchCategorical) else (of.mean.detach(), 0)
    assert torch.allclose(torch.tensor(greedy.action) - start, best)
    assert torch.allclose(torch.tensor(greedy.log_prob), of.log_prob(best).detach(), atol=1e-5)


def test_environments_get_actions_within_their_bounds() -> None:
    space = gym.spaces.Box(np.array([[-1], [-2]], np.float32), np.array([[1], [np.inf]], np.float32))
    policy = ActorCritic.of(BOX, space)
    done = policy.act(np.zeros((4, 3), np.float32), np.full((4, 2), 50.0))
    assert done.action.shape == (4, 2) and (done.action > 40).all()
    assert done.to_environment.shape == (4, 2, 1) and space.contains(done.to_environment[0])
    assert done.to_environment[0, 1, 0] == done.action[0, 1]


@BOTH
def test_masked_steps_change_nothing(make) -> None:
    policy = make(normalise=True)
    r = acted(policy)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 2] = mask[2, 4] = False
    found = []
    for bad in (0.0, torch.nan):
        observation = r.field("observation").values.masked_fill(~mask[..., None], bad)
        action = r.action if r.action.dim() == 2 else r.action.masked_fill(~mask[..., None], bad)
        some = r.replace(mask=mask, action=action).with_field("observation", "step", observation)
        some = some.with_field("next_observation", "step", observation)
        out = policy.evaluate(some, ALL)
        total = sum(torch.where(mask, x, 0).sum() for x in out.values())
        found.append([total, *torch.autograd.grad(total, list(policy.parameters().values()))])
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(*found, strict=True))


def test_an_update_moves_what_acts() -> None:
    """Acting reads the parameters where they are: after a step of the optimiser it is by the new ones."""
    policy = discrete()
    r = acted(policy)
    updater = policy.updater(lr=0.1)
    out = policy.evaluate(r, frozenset({"log_prob"}))
    updater.accumulate(out, {"log_prob": -torch.ones(3, 5)})
    updater.step(lr=0.1)
    again = acted(policy)
    assert not torch.allclose(again.log_prob, r.log_prob, atol=1e-3)
    assert torch.allclose(policy.evaluate(again, ALL)["log_prob"], again.log_prob, atol=1e-6)


def test_discrete_observations() -> None:
    policy = ActorCritic.of(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    done = policy.act(np.array([0, 4, 4]), np.array([0.1, 0.1, 0.9]))
    ids = torch.tensor([[0], [4], [4]])
    r = Rollouts(
        action=torch.tensor(done.action)[:, None],
        mask=torch.ones(3, 1, dtype=torch.bool),
        task=list("abc"),
        fields={"observation": Field("step", ids), "next_observation": Field("step", ids.flip(0))},
    )
    out = policy.evaluate(r, ALL)
    assert out["log_prob"][:, 0].tolist() == pytest.approx(done.log_prob.tolist(), abs=1e-6)
    value = out["value"][:, 0].tolist()
    assert value[1] == pytest.approx(value[2], abs=1e-6) and value[1] != pytest.approx(value[0], abs=1e-6)
    assert torch.allclose(out["next_value"], out["value"].flip(0))


@BOTH
@pytest.mark.parametrize("normalise", [False, True])
def test_saved_and_loaded(make, normalise, tmp_path) -> None:
    policy = make(normalise=normalise, clip=3.0)
    policy.observe(3 + 2 * torch.randn(50, 3))
    policy.save(tmp_path / "policy")
    again = ActorCritic.load(tmp_path / "policy")
    r = acted(policy)
    assert all(torch.equal(x, again.evaluate(r, ALL)[k]) for k, x in policy.evaluate(r, ALL).items())
    assert torch.equal(acted(again).log_prob, r.log_prob)
    with torch.no_grad():
        policy.critic[0][0].add_(1)
    again.load_state_dict(policy.state_dict())
    assert torch.equal(policy.evaluate(r, ALL)["value"], again.evaluate(r, ALL)["value"])


def test_a_state_of_another_policy_is_refused() -> None:
    with pytest.raises(CheckpointError, match="normaliser"):
        discrete().load_state_dict(discrete(normalise=True).state_dict())
    with pytest.raises(CheckpointError, match=r"actor\.0\.weight"):
        discrete().load_state_dict(ActorCritic(5, Categorical(4, start=2), hidden=(8, 8)).state_dict())
    with pytest.raises(InputError, match=r"config\.json"):
        ActorCritic.load("nowhere")


def test_normalised_observations_are_read_by_their_statistics() -> None:
    policy = discrete(normalise=True, dtype=torch.float64)
    seen = 5 + 3 * torch.randn(400, 3)
    r = acted(policy)
    plain = policy.evaluate(r, ALL)["value"]
    policy.observe(seen)
    x = (r.field("observation").values.double() - seen.double().mean(0)) / seen.double().std(0, correction=0)
    assert torch.allclose(policy.evaluate(r, ALL)["value"], through(policy.critic, x)[..., 0], atol=1e-6)
    assert not torch.allclose(policy.evaluate(r, ALL)["value"], plain, atol=1e-3)
    assert torch.allclose(policy.evaluate(acted(policy), ALL)["log_prob"], acted(policy).log_prob, atol=1e-6)


def test_far_observations_are_clipped_alike_where_it_acts_and_where_it_learns() -> None:
    policy = discrete(normalise=True, clip=0.5)
    policy.observe(torch.randn(50, 3))
    with torch.no_grad():
        policy.actor[-1][0].mul_(100)
    r = acted(policy)
    far = r.with_field("observation", "step", torch.full((3, 5, 3), 1e3))
    done = policy.act(np.full((3, 3), 1e3, np.float32), np.full(3, 0.5))
    again = policy.evaluate(far.replace(action=torch.tensor(done.action)[:, None].expand(3, 5)), ALL)["log_prob"]
    assert torch.allclose(again[:, 0], torch.tensor(done.log_prob), atol=1e-5)
    x = through(policy.actor, torch.full((3,), 0.5)).log_softmax(-1)
    assert done.log_prob.tolist() == pytest.approx([x[i - 2].item() for i in done.action], abs=1e-5)


def test_one_decision_per_context() -> None:
    policy = gaussian()
    contexts = [Context("a", [0.0, 1.0, 2.0], index=i) for i in (0, 1, 0)]
    r = policy.sample(contexts, Sampling(), 3)
    assert r.action.shape == (3, 1, 2) and torch.equal(r.action[0], r.action[2]) and not torch.equal(r.action[0], r.action[1])
    assert torch.allclose(policy.evaluate(r, frozenset({"log_prob"}))["log_prob"], r.log_prob, atol=1e-6)
    greedy = policy.sample(contexts, Sampling(temperature=0), 3)
    assert torch.equal(greedy.action[0], greedy.action[1])


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (gym.spaces.Dict(a=BOX), gym.spaces.Discrete(2), "observation space should be a Box or Discrete"),
        (gym.spaces.Discrete(3, start=1), gym.spaces.Discrete(2), "start at 0"),
        (BOX, gym.spaces.MultiDiscrete([2, 2]), "action space should be Discrete or a Box"),
        (BOX, gym.spaces.Box(0, 5, (2,), dtype=np.int64), "action space should be Discrete or a Box"),
    ],
)
def test_spaces_it_cannot_serve(observation, action, message) -> None:
    with pytest.raises(InputError, match=message):
        ActorCritic.of(observation, action)


def test_unknown_outputs() -> None:
    with pytest.raises(InputError, match="no output q; there are entropy"):
        discrete().evaluate(acted(discrete()), frozenset({"q"}))


def test_bounds_without_an_end_are_stored(tmp_path) -> None:
    policy = ActorCritic.of(BOX, gym.spaces.Box(-np.inf, 2.0, (1,)))
    policy.save(tmp_path)
    assert ActorCritic.load(tmp_path).actions == policy.actions == distribution_of(gym.spaces.Box(-np.inf, 2.0, (1,)))
