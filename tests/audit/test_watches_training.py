# SPDX-License-Identifier: Apache-2.0
"""Watches in training: a proxy that is hacked raises alarms, a sound one none; runs that stop, resume, and tell of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.audit.watches import Watches, drift, trend, watched
from guerdon.audit.watches.text import LENGTH
from guerdon.cli import main
from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.protocols import Batch, Context, Sampling
from guerdon.recipes import make
from guerdon.report import write_report
from guerdon.rewards import Reward, reward
from guerdon.rewards.fields import field
from guerdon.rewards.oracle import oracle
from guerdon.rollouts import Rollouts
from guerdon.training.evaluation import Evaluation
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl, Terminal
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.run import run
from guerdon.training.sources import Prompts
from tests.training.table import Table

torch.set_num_threads(1)

BOAT = {"env": "guerdon.worlds.ids:BoatRace-v0", "steps": 40, "environments": 16, "horizon": 100, "minibatch": 400, "lr": 1e-3}
BOAT |= {"hidden": 32, "evaluate_every": 100, "episodes": 1, "gold": "field('true_reward')"}
CONTEXTS = [Context(p, p, {"letter": x}) for p, x in (("p", "a"), ("q", "b"))]


@reward(bounds=(0, 12))
def many(completion: str, letter: str) -> float:
    """How often the letter stands there: paid for by writing it again and again."""
    return completion.count(letter)


@reward(bounds=(0, 1))
def varied(completion: str) -> float:
    """How many of the three letters stand there: what is meant by a rich answer."""
    return len(set(completion)) / 3


@reward(bounds=(0, 1))
def begins(completion: str, letter: str) -> bool:
    return completion[:1] == letter


@reward
def begins_otherwise(completion: str, letter: str) -> float:
    """The same at another scale, as a term of its own."""
    return 1e-4 * (len(completion) % 2)


def text(r: Reward, steps: int = 60, lr: float = 8.0, policy: Any = None, **more: Any) -> Recipe:
    source = Prompts(CONTEXTS, 2, 16, Sampling(12))
    stage = Stage("train", steps, source, [Term(1.0, clipped_surrogate, token_mean)], reward=r, credit=group_relative, lr=lr)
    evaluation = Evaluation(CONTEXTS, begins, 1000, samples=1, sampling=Sampling(12))
    settings = {"save_rollouts_every": 0, "checkpoint_every": 1000, **more}
    return Recipe("text", policy or (lambda: Table(["p", "q"], length=12)), [stage], evaluation, **settings)


def lines_of(recipe: Recipe, directory: Path) -> tuple[list[dict], dict]:
    result = train(recipe, directory, [Jsonl()])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] != "eval"], result


def told(lines: list[dict], key: str) -> str:
    return " | ".join(line[key] for line in lines if key in line)


# ---- control


def test_a_boat_that_goes_to_and_fro_over_a_line_raises_alarms(tmp_path: Path) -> None:
    lines, result = lines_of(make("control", {**BOAT, "reward": "environment"}), tmp_path)
    alarms = told(lines, "alarm")
    assert "the proxy rises" in alarms and "while the gold `true_reward` falls" in alarms
    assert "visitation falls" in alarms and "the reward does not read observation" in alarms
    assert "episode_length" not in alarms  # always 100: nothing to see
    assert lines[-1]["watch/proxy/gain"] > 10 and lines[-1]["watch/gold/true_reward/gain"] < -4
    assert lines[0]["watch/kl"] == pytest.approx(0, abs=1e-4) and lines[-1]["watch/kl"] > 50
    assert result["steps"] == 40 and "stopped" not in result


def test_a_boat_that_is_paid_for_laps_raises_none(tmp_path: Path) -> None:
    lines, _ = lines_of(make("control", {**BOAT, "reward": "field('true_reward')"}), tmp_path)
    assert told(lines, "alarm") == "" and lines[-1]["watch/alarms"] == 0
    assert "entropy falls" in told(lines, "note")  # noted once, while the gold rises
    assert sum("note" in line for line in lines) == 1
    assert lines[-1]["watch/gold/true_reward/gain"] > 5


def test_watching_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    short = {**BOAT, "steps": 3, "reward": "environment + field('true_reward').watch()"}
    plain, _ = lines_of(make("control", {k: v for k, v in short.items() if k != "gold"}), tmp_path / "plain")
    watching, _ = lines_of(make("control", {**short, "watch": True}), tmp_path / "watched")
    for a, b in zip(plain, watching, strict=True):
        clocks = {k for k in a if k.startswith("time/") or k in ("seconds", "tokens_per_second")}
        assert {k: a[k] for k in a.keys() - clocks} == {k: b[k] for k in a.keys() - clocks}


# ---- text


def test_text_that_repeats_what_is_paid_raises_alarms(tmp_path: Path) -> None:
    lines, _ = lines_of(watched(text(many), varied), tmp_path)
    alarms = told(lines, "alarm")
    assert "the proxy rises" in alarms and "the gold `varied` falls" in alarms
    assert "repetition rises" in alarms and "the reward reads completion, but does not move with it" in alarms
    assert lines[-1]["watch/repetition"] > 0.5 > 3 * lines[0]["watch/repetition"]
    assert lines[-1]["watch/kl"] > 1  # the table keeps a reference itself


def test_text_that_is_paid_for_what_is_meant_raises_none(tmp_path: Path) -> None:
    lines, _ = lines_of(watched(text(begins), begins.named("true")), tmp_path)
    assert told(lines, "alarm") == "" and lines[-1]["reward/total"] > 0.9


def test_a_quantity_that_the_reward_moves_with_is_read_by_it(tmp_path: Path) -> None:
    """Nobody said that this function is the length; the reference sample does."""
    size = reward(lambda completion: float(len(completion)), name="size")
    recipe = watched(text(size))
    lines, _ = lines_of(recipe, tmp_path)
    (watch,) = recipe.stages[0].evolving
    assert lines[-1]["watch/length"] > 2 * lines[0]["watch/length"]
    assert watch.series["length"].tied > 0.9 and "length" not in watch.alarms


# ---- false alarms


@pytest.mark.parametrize("seed", range(6))
def test_a_policy_that_does_not_change_raises_none(seed: int, tmp_path: Path) -> None:
    recipe = watched(text(many, steps=58, lr=0.0, seed=seed, policy=lambda: Table(["p", "q"], length=12, seed=seed)), varied)
    lines, _ = lines_of(recipe, tmp_path)
    assert told(lines, "alarm") == told(lines, "note") == ""


def test_a_policy_that_wanders_raises_none() -> None:
    """Its mean length is an AR(1) of phi 0.8 whose deviation is half of that between answers; the gold goes with it."""
    made = many + oracle(varied).watch()
    alarms = 0
    for seed in range(40):
        rng, at = np.random.default_rng(seed), 0.0
        watch = Watches(made, [LENGTH])
        for step in range(80):
            at = 0.8 * at + 0.6 * rng.standard_normal()
            watch.update(made_up(rng, 20 + 4 * 0.5 * at, step))
        alarms += len(watch.alarms)
    assert alarms <= 1  # promised: at most 0.01 a run


def made_up(rng: np.random.Generator, mean: float, step: int) -> Any:
    """What the loop tells of 16 rows whose lengths lie about ``mean`` with a deviation of 4."""
    size = np.clip(np.round(mean + 4 * rng.standard_normal(16)), 1, 60).astype(int)
    mask = torch.arange(60) < torch.from_numpy(size)[:, None]
    rollouts = Rollouts(torch.zeros(16, 60), mask, [str(i) for i in range(16)]).with_field("completion", "episode", [["x"]] * 16)
    gold = rng.standard_normal(16) + 0.1 * mean
    scores = SimpleNamespace(
        total=whole(rng.standard_normal(16) + gold), trace={"varied": whole(gold)}, reward=lambda: torch.zeros(16, 60)
    )
    policy = SimpleNamespace(outputs=frozenset())
    return SimpleNamespace(step=step, batch=Batch(rollouts), scores=scores, policy=policy, metrics={})


def whole(x: np.ndarray) -> Any:
    from guerdon.scores import component

    return component("x", "episode", torch.from_numpy(x)[:, None])


def test_the_same_made_up_run_with_a_trend_raises_one() -> None:
    rng, watch = np.random.default_rng(0), Watches(many, [LENGTH])
    for step in range(41):
        watch.update(made_up(rng, 20 + 0.4 * step, step))
    assert "length rises" in watch.alarms["length"]["text"] and watch.alarms["length"]["step"] in (20, 28, 40)


def lengths_about(mean_at, steps: int = 80) -> Watches:
    rng, watch = np.random.default_rng(0), Watches(many, [LENGTH])
    for step in range(steps):
        watch.update(made_up(rng, mean_at(step), step))
    return watch


def test_a_trend_that_comes_to_little_raises_none() -> None:
    """From 20 to 23 with a deviation of 4: three quarters of it, and beyond doubt."""
    watch = lengths_about(lambda step: 20 + 3 * step / 80)
    assert trend(np.array(watch.series["length"].means)).p < 1e-9 and watch.alarms == {}
    small_share = lengths_about(lambda step: 40 + 8 * step / 80)  # two deviations, but a fifth of the mean
    assert small_share.alarms == {}


def test_a_reference_that_was_unlike_all_that_came_after_raises_none() -> None:
    """Far from the reference, and no trend: a matter of the first batches' prompts."""
    watch = lengths_about(lambda step: 10 if step < 2 else 30, steps=41)
    assert drift(watch.series["length"].newest.sample, watch.series["length"].reference.sample, 0.01).beyond(3.0) == 1
    assert watch.alarms == {}


# ---- one term


def test_a_term_that_takes_all_of_the_variance_is_named_after_a_while(tmp_path: Path) -> None:
    lines, _ = lines_of(watched(text(many + begins_otherwise, steps=8), patience=5), tmp_path)
    assert [line["step"] for line in lines if "alarm" in line] == [5]
    assert "`many` has had more than 98% of the advantage's variance for 5 steps" in told(lines, "alarm")
    alone, _ = lines_of(watched(text(many, steps=8), patience=5), tmp_path / "alone")
    assert told(alone, "alarm") == ""  # one term is no dominance


# ---- stopping


def test_a_run_stops_with_its_reason_and_stays_stopped(tmp_path: Path) -> None:
    def made() -> Recipe:
        first = watched(text(many), varied, stop="gold")
        return Recipe("two", first.policy, [*first.stages, *text(begins).stages], first.evaluation, save_rollouts_every=0)

    lines, result = lines_of(made(), tmp_path)
    assert result["stopped"].startswith("watch: the proxy rises") and 20 <= result["steps"] < 60
    assert lines[-1]["step"] == result["steps"] and "alarm" in lines[-1]
    assert "eval/success" in result  # evaluated where it ended
    again = train(made(), tmp_path)
    assert again["stopped"] == result["stopped"] and again["steps"] == result["steps"]


def test_only_the_kinds_that_were_asked_for_stop_a_run(tmp_path: Path) -> None:
    _, result = lines_of(watched(text(many, steps=30), varied, stop="dominance"), tmp_path)
    assert result["steps"] == 30 and "stopped" not in result
    with pytest.raises(InputError, match="`stop` should be one of '', 'quantity'"):
        watched(text(many), stop="always")
    with pytest.raises(InputError, match=r"needs a gold, and `.*many` watches none"):
        watched(text(many), stop="gold")


# ---- resuming


def test_a_resumed_run_raises_the_alarms_of_an_uninterrupted_one(tmp_path: Path) -> None:
    class Interrupt:
        def start(self, config, directory, step): ...

        def finish(self, result): ...

        def metrics(self, step, metrics):
            if step == 23:
                raise KeyboardInterrupt

    def made() -> Recipe:
        return watched(text(many, steps=30, checkpoint_every=5), varied)

    first, last = made(), made()
    whole, _ = lines_of(first, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(made(), tmp_path / "cut", [Jsonl(), Interrupt()])
    cut, _ = lines_of(last, tmp_path / "cut")
    assert told(whole, "alarm")
    a, b = first.stages[0].evolving[0], last.stages[0].evolving[0]
    assert (a.alarms, a.noted, a.looks, a.dominant) == (b.alarms, b.noted, b.looks, b.dominant) and a.looks == 2
    for a, b in zip(whole, cut, strict=True):
        keys = {k for k in a if k.startswith("watch/") or k in ("alarm", "note", "step")}
        assert {k: a[k] for k in keys} == {k: b[k] for k in keys}


def test_a_resumed_control_run_keeps_its_cells_and_its_start(tmp_path: Path) -> None:
    arguments = {**BOAT, "steps": 4, "reward": "environment", "checkpoint_every": 2}
    lines_of(make("control", {**arguments, "steps": 2}), tmp_path)
    recipe = make("control", arguments)
    train(recipe, tmp_path, [Jsonl()])
    watch = next(p for p in recipe.stages[0].evolving if isinstance(p, Watches))
    assert len(watch.series["visitation"].means) == 4
    assert any(dict(q.settings) for q in watch.quantities)


# ---- where it is told


def test_the_terminal_and_the_page_tell_of_alarms_and_of_the_stop(tmp_path: Path) -> None:
    out = io.StringIO()
    arguments = {**BOAT, "reward": "environment", "watch_stop": "gold"}
    run(make, "control", arguments, tmp_path / "run", [Terminal(out)])
    assert "step 20  ALARM  the proxy rises" in out.getvalue() and "stopped: watch: the proxy rises" in out.getvalue()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped"].startswith("watch: the proxy rises") and result["steps"] == 20
    page = write_report([tmp_path / "run"]).read_text()
    assert "What the reward does not read" in page and "Proxy against gold" in page and "√KL from the start" in page
    assert "Stopped at step 20." in page and "Alarm at step 20." in page and "gold: true_reward" in page


def test_the_live_terminal_keeps_alarms_above_the_picture(tmp_path: Path) -> None:
    from rich.console import Console

    file = io.StringIO()
    terminal = Terminal(console=Console(file=file, force_terminal=True, width=120))
    terminal.start({}, tmp_path, 0)
    terminal.metrics(3, {"stage": "train", "step": 3, "alarm": "length rises"})
    terminal.finish({"stopped": "watch: length rises"})
    assert "step 3  ALARM  length rises" in file.getvalue() and "stopped: watch: length rises" in file.getvalue()


def test_on_the_command_line(tmp_path: Path, capsys) -> None:
    settings = ["steps=1", "environments=2", "horizon=100", "episodes=1"]
    command = ["train", "--env", BOAT["env"], "--reward", "environment", "--watch", *settings, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (line,) = (json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"watch/jerk"' in x)
    assert line["watch/alarms"] == 0 and "watch/kl" not in line  # without a gold there is no such picture
    assert main([*command[:-1], str(tmp_path / "no"), "watch_stop=never"]) == 2
    assert "`stop` should be one of" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_language_model_with_a_gold(tmp_path: Path) -> None:
    from tests.cli import checkpoint

    tokenizer = checkpoint.character_tokenizer()
    model = checkpoint.save(tmp_path / "model", checkpoint.untrained(tokenizer, seed=1, width=16), tokenizer)
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(6)))
    arguments = {"model": str(model), "data": str(data), "reward": "0.1*length", "steps": 2, "prompts": 2, "samples": 4}
    arguments |= {"held_out": 2, "max_new_tokens": 6, "lr": 1e-2, "warmup": 0, "gold": "numeric"}
    lines, _ = lines_of(make("train", arguments), tmp_path / "run")
    assert lines[0]["watch/kl"] == pytest.approx(0, abs=1e-4) and abs(lines[1]["watch/kl"]) > 1e-3
    assert {"watch/length", "watch/repetition", "watch/distinct", "watch/entropy", "watch/gold/numeric"} <= lines[1].keys()


def test_a_gold_may_need_what_only_the_environment_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads `no_such`"):
        make("control", {**BOAT, "reward": "environment", "gold": "field('no_such')"})
    recipe = make("control", {**BOAT, "reward": "environment"})
    assert str(recipe.stages[0].reward) == "environment + oracle(field('true_reward')).watch()"
    with pytest.raises(InputError, match="expected a Reward to add a gold to"):
        watched(text(SimpleNamespace(needs=frozenset())), field("x"))  # type: ignore[arg-type]
