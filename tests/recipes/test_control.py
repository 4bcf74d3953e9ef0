# SPDX-License-Identifier: Apache-2.0
"""Control through the very loop that trains text: what a reward at one step does to the credit of another, and whole runs."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import pytest
import torch

from guerdon.cli import main
from guerdon.errors import InputError
from guerdon.policies.actor_critic import ActorCritic
from guerdon.recipes.control import recipe
from guerdon.rewards import reward
from guerdon.sampling.environments import episodes
from guerdon.training import checkpoint
from guerdon.training.crediting import Crediting
from guerdon.training.loop import train
from guerdon.training.scoring import score
from tests.sampling.counting import Counting

torch.set_num_threads(1)

SMALL = {"environments": 4, "horizon": 64, "minibatch": 64, "hidden": 16, "episodes": 4}


@pytest.fixture
def bonus(tmp_path):
    """A reward of one's own in a file: how upright the pole is."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from guerdon.rewards import reward\n\n\n@reward(level='step', batched=True)\n"
        "def upright(next_observation):\n    return [1 - abs(float(o[2])) for o in next_observation]\n"
    )
    return f"{path}:upright"


def advantages(made, composed) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantage before whitening, [N, T]; episode) of the recipe's first batch under another reward."""
    stage = replace(made.stages[0], reward=composed, transforms=())
    torch.manual_seed(0)
    policy = made.policy()
    batch, scores = score(stage, stage.source.batch(0, policy, 0), policy, 0)
    stage.source.close()
    ingredients, _ = Crediting(stage, batch, scores, policy, 0).assign()
    return ingredients["advantage"], batch.rollouts.level("episode")


def test_a_bonus_at_step_10_changes_the_advantage_at_step_0() -> None:
    @reward(level="step", batched=True)
    def at_10(index):
        return [float(i == 10) for i in index]

    made = recipe("Pendulum-v1", environments=3, horizon=40, normalise=False, gamma=0.9, lam=0.8)
    plain, episode = advantages(made, made.stages[0].reward)
    more, _ = advantages(made, made.stages[0].reward + 5 * at_10)
    assert (episode == 0).all()
    t = torch.arange(40)
    want = torch.where(t <= 10, 5 * (0.9 * 0.8) ** (10 - t).clamp(min=0).double(), 0).float()
    assert torch.allclose(more - plain, want.expand(3, 40), atol=2e-5)
    assert (more - plain)[0, 0] > 0.18


def test_a_bonus_does_not_reach_another_episode() -> None:
    @reward(level="step", batched=True)
    def late(index):
        return [float(i == 63) for i in index]

    made = recipe("CartPole-v1", environments=3, horizon=64, normalise=False)
    plain, episode = advantages(made, made.stages[0].reward)
    more, _ = advantages(made, made.stages[0].reward + 5 * late)
    same = (episode == episode[:, -1:]) & (episode >= 0)
    moved = (more - plain).abs() > 1e-4
    assert episode.max() >= 1 and moved.any() and not moved[~same].any()


def test_it_learns_and_what_it_keeps_acts_alike(tmp_path) -> None:
    made = recipe("CartPole-v1", steps=12, evaluate_every=12, episodes=10, lr=1e-3)
    result = train(made, tmp_path / "run")
    assert result["eval/return_start"] < 60 < 150 < result["eval/return"]
    assert result["eval/return"] == result["eval/reward"] == result["eval/length"]
    policy = ActorCritic.load(tmp_path / "run" / "policy")
    assert policy.normaliser is not None and policy.normaliser.count > 20_000
    again = made.evaluation.measure(policy, 0)
    assert again["eval/return"] == result["eval/return"]


def test_everything_with_state_is_in_the_checkpoint(tmp_path) -> None:
    made = recipe("Pendulum-v1", steps=3, checkpoint_every=2, evaluate_every=3, **SMALL)
    train(made, tmp_path / "run")
    kept = checkpoint.latest(tmp_path / "run")
    assert kept is not None
    assert int(kept["policy"]["normaliser.count"]) == 3 * 4 * 64
    scale = next(x for k, x in kept["parts"].items() if k.endswith("ReturnScale"))
    assert int(scale["moments"]["count"]) == 3 * 4 * 64 and scale["running"].abs().sum() > 0


def test_evaluation_leaves_the_statistics_alone() -> None:
    made = recipe("Pendulum-v1", **SMALL)
    torch.manual_seed(0)
    policy = made.policy()
    policy.observe(torch.randn(10, 3))
    before = policy.state_dict()
    figures = [made.evaluation.measure(policy, 0) for _ in range(2)]
    assert figures[0] == figures[1] and all(torch.equal(x, before[k]) for k, x in policy.state_dict().items())


def test_success_is_what_one_says_it_is(tmp_path) -> None:
    made = recipe(
        "CartPole-v1",
        steps=1,
        success="environment.pool('sum', 'episode').gate(on=environment.pool('sum', 'episode'), above=12)",
        **SMALL,
    )
    torch.manual_seed(0)
    policy = made.policy()
    lengths = episodes(policy, "CartPole-v1", 4, seed=0x5EED, greedy=True).length
    assert made.evaluation.measure(policy, 0)["eval/success"] == pytest.approx((lengths > 12).double().mean().item())
    assert made.best == "eval/success"


def test_from_the_command_line(tmp_path, capsys, bonus) -> None:
    out = tmp_path / "run"
    expression = f"environment + 0.1*{bonus}"
    settings = ["steps=2", "environments=4", "horizon=32", "minibatch=32", "evaluate_every=1", "episodes=2"]
    assert main(["train", "--env", "CartPole-v1", "--reward", expression, "--out", str(out), *settings]) == 0
    assert "return" in capsys.readouterr().out
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [x for x in lines if x["stage"] == "train"]
    assert len(trained) == 2
    for x in trained:
        assert x["reward/environment"] == 1 and 0.9 < x["reward/upright"] < 1
        assert x["share/environment"] + x["share/upright"] == pytest.approx(1, abs=1e-4)
        assert x["environment/failed"] == 0 and x["tokens"] > 0
    assert ActorCritic.load(out / "policy").actions.count == 2 and (out / "report.html").exists()
    before = (out / "result.json").read_text()
    assert main(["train", "--env", "CartPole-v1", "--reward", expression, "--out", str(out), *settings]) == 0
    assert (out / "result.json").read_text() == before and "finished already" in capsys.readouterr().out


def test_a_killed_run_goes_on(tmp_path) -> None:
    class Killed(Exception):
        pass

    class Killer:
        def start(self, config, directory, step) -> None: ...

        def metrics(self, step, metrics) -> None:
            if step == 3:
                raise Killed

        def finish(self, result) -> None: ...

    made = recipe("CartPole-v1", steps=4, checkpoint_every=2, evaluate_every=4, **SMALL)
    with pytest.raises(Killed):
        train(made, tmp_path / "run", [Killer()])
    result = train(recipe("CartPole-v1", steps=4, checkpoint_every=2, evaluate_every=4, **SMALL), tmp_path / "run")
    assert result["steps"] == 4
    assert int(checkpoint.latest(tmp_path / "run")["policy"]["normaliser.count"]) == result["tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "CartPol-v1", "--reward", "environment"], "Near it: CartPole-v1"),
        (["--env", "CartPole-v1", "--reward", "field('speed')"], "reads `speed`, which CartPole-v1 does not have"),
        (["--env", "CartPole-v1", "--reward", "numeric"], "reads `answer`, `completion`"),
        (["--env", "CartPole-v1", "--reward", "environment", "gamma=99"], "`gamma` should lie between 0 and 1, got 99"),
        (["--env", "CartPole-v1", "--reward", "environment", "horizon=0"], "`horizon` should be at least 1"),
        (["--env", "CartPole-v1", "--reward", "environment", "success=environment"], "one value an episode"),
        (["--env", "CartPole-v1", "--model", "x", "--reward", "environment"], "got --env and --model"),
        (["--reward", "environment"], "got none of them"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_space_it_cannot_serve() -> None:
    def pairs() -> gym.Env:
        env = Counting()
        env.action_space = gym.spaces.MultiDiscrete([2, 2])
        return env

    if "Pairs-v0" not in gym.registry:
        gym.register("Pairs-v0", pairs)
    with pytest.raises(InputError, match="action space should be Discrete or a Box"):
        recipe("Pairs-v0").policy()


def test_the_networks_compute_with_as_many_threads_as_asked() -> None:
    from threadpoolctl import threadpool_info

    for threads in (2, 1):
        recipe("CartPole-v1", threads=threads).policy()
        assert torch.get_num_threads() == threads
        assert {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"} == {threads}
    with pytest.raises(InputError, match="`threads` should be at least 1, got 0"):
        recipe("CartPole-v1", threads=0)
