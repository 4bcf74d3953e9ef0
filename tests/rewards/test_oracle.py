# SPDX-License-Identifier: Apache-2.0
"""The true goal is scored, watched and evaluated with; whatever trains on it is refused when it is built."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from guerdon.cli import main
from guerdon.credit import group_relative
from guerdon.errors import ExpressionError
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.protocols import Context, Sampling
from guerdon.recipes import make
from guerdon.rewards import Reward, linear, max_of, min_of, parse, reward
from guerdon.rewards.checkers import exact, length, numeric
from guerdon.rewards.oracle import Oracle, oracle, oracles, refuse_oracles
from guerdon.training.evaluation import Evaluation
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts
from tests.training.table import Table

CONTEXTS = [Context(p, p, {"letter": x}) for p, x in (("p", "a"), ("q", "b"))]


@reward(bounds=(0, 1))
def mostly(completion: str, letter: str) -> float:
    return completion.count(letter) / max(len(completion), 1)


@reward(bounds=(0, 8))
def long(completion: str) -> float:
    return float(len(completion))


def stage(r: Reward, name: str = "train") -> Stage:
    source = Prompts(CONTEXTS, 2, 8, Sampling(4))
    return Stage(name, 3, source, [Term(1.0, clipped_surrogate, token_mean)], reward=r, credit=group_relative, lr=8.0)


LIVE = {
    "alone": lambda o: o,
    "a term": lambda o: numeric() + o,
    "a term taken away": lambda o: numeric() - o,
    "weight 0": lambda o: numeric() + 0 * o,
    "a schedule": lambda o: numeric() + linear(0, 1, 10) * o,
    "a factor": lambda o: numeric() * o,
    "a condition": lambda o: numeric().gate(on=o),
    "what is gated": lambda o: o.gate(on=numeric()),
    "in reserve": lambda o: numeric().otherwise(o),
    "a minimum": lambda o: min_of(numeric(), max_of(o, length())),
    "clipped, normalised, named": lambda o: o.clip(0, 1).normalise().named("tidy") + numeric(),
    "dealt anew": lambda o: numeric() + o.shuffled(),
    "with a budget": lambda o: (numeric() + o).with_budget(1.0),
    "watched and counted": lambda o: numeric() + o + o.watch(),
    "beside another that is watched": lambda o: oracle(length()).watch() + numeric() + o,
}


@pytest.mark.parametrize("build", LIVE.values(), ids=LIVE)
def test_a_stage_that_trains_on_an_oracle_is_refused_naming_it(build) -> None:
    with pytest.raises(ExpressionError, match=r"stage `improve`: expected .* true goal, got `oracle\(exact.*\)` in `"):
        stage(build(oracle(exact())), "improve")


WATCHED = {
    "watched": lambda o: numeric() + o.watch(),
    "watched inside": lambda o: numeric() + oracle(exact().watch()),
    "watched in a whole": lambda o: numeric() + min_of(o, length()).gate(on=o).watch(),
    "weighed and watched": lambda o: numeric() + 0.5 * o.watch(),
    "its reward without the mark": lambda o: o.parts[0],
}


@pytest.mark.parametrize("build", WATCHED.values(), ids=WATCHED)
def test_what_is_only_watched_is_fine(build) -> None:
    stage(build(oracle(exact())))


def test_the_error_names_each_live_oracle_and_no_watched_one() -> None:
    built = oracle(exact()) + oracle(length()) + oracle(numeric()).watch()
    with pytest.raises(ExpressionError, match=r"got `oracle\(exact\)`, `oracle\(length\)` in `"):
        refuse_oracles(built, "stage")
    assert [str(o) for o in oracles(built)] == ["oracle(exact)", "oracle(length)", "oracle(numeric)"]


def test_it_scores_as_its_reward_does_and_keeps_its_name() -> None:
    data = {"completions": ["4", "5", "x"], "answer": ["4", "4", "4"]}
    plain, marked = numeric()(**data), (2 * oracle(numeric()))(**data)
    assert torch.equal(2 * plain.total.values, marked.total.values)
    assert list(marked.trace) == ["numeric"]  # one part, not the oracle and its reward
    watched = (exact() + oracle(numeric()).watch())(**data)
    assert torch.equal(watched.trace["numeric"].values, plain.total.values) and watched.trace["numeric"].weight is None
    failing = reward(lambda completion: math.nan, name="broken")
    assert oracle(failing)(completions=["a"]).total.reasons == {(0, 0): "returned nan, expected a finite number"}


def test_marks_do_not_pile_up() -> None:
    once = oracle(exact())
    assert oracle(once) is once and oracle(exact().watch()) == once.watch()
    assert once != exact() and once == oracle(exact()) and isinstance(once, Oracle)
    with pytest.raises(ExpressionError, match="oracle: expected a reward, got 1"):
        oracle(1)  # type: ignore[arg-type]


# ---- as text


@pytest.mark.parametrize(
    "text",
    [
        "oracle(numeric)",
        "numeric + oracle(exact).watch()",
        "numeric + 0.5 * oracle(exact + 0.1 * length)",
        "numeric.gate(on=oracle(exact), above=0.5)",
        "min_of(oracle(numeric), exact).named('both')",
        "oracle(field('true_reward').pool('sum', 'episode')).watch() + environment",
    ],
)
def test_as_text_and_back(text: str) -> None:
    made = parse(text)
    assert str(made) == text and parse(str(made)) == made
    assert [str(o) for o in oracles(parse(str(made)))] == [str(o) for o in oracles(made)] != []


def test_of_a_function_of_ones_own_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from guerdon import checkers\nfrom guerdon.rewards.oracle import oracle\n\n\ndef good(completion):\n    return 1.0\n\n\n"
        "true = oracle(checkers.exact())\n"
    )
    made = parse("numeric + oracle(mine.py:good)")
    assert parse(str(made)) == made
    for text in (str(made), "numeric + mine.py:true"):  # also where a file of one's own holds the mark
        with pytest.raises(ExpressionError, match="true goal"):
            stage(parse(text))


# ---- where training begins


def test_the_command_line_refuses_it_before_anything_is_written(tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    command = ["train", "--env", "guerdon.worlds.ids:BoatRace-v0", "--out", str(out), "--reward"]
    assert main([*command, "environment + 0.1 * oracle(field('true_reward'))"]) == 2
    said = capsys.readouterr().err
    assert "`oracle(field('true_reward'))`" in said and "Watch it with .watch()" in said and not out.exists()


def test_recipes_take_it_as_success_and_watched(tmp_path: Path) -> None:
    arguments = {
        "env": "guerdon.worlds.ids:BoatRace-v0",
        "reward": "environment + oracle(field('true_reward')).watch()",
        "success": "oracle(field('true_reward').pool('sum', 'episode'))",
    }
    made = make("control", arguments)
    assert [str(o) for o in oracles(made.stages[0].reward)] == ["oracle(field('true_reward'))"]
    with pytest.raises(ExpressionError, match="true goal"):
        make("control", {**arguments, "reward": "oracle(field('true_reward'))"})


def test_a_run_watches_and_evaluates_with_it_and_never_credits_it(tmp_path: Path) -> None:
    true = oracle(mostly)
    evaluation = Evaluation(CONTEXTS, true, 3, samples=2, sampling=Sampling(4))
    recipe = Recipe("test", lambda: Table(["p", "q"]), [stage(long + true.watch())], evaluation)
    result = train(recipe, tmp_path)
    alone = train(Recipe("test", lambda: Table(["p", "q"]), [stage(long)], evaluation), tmp_path / "alone")
    assert 0 <= result["eval/success"] <= 1
    assert {k: v for k, v in result.items() if k != "seconds"} == {k: v for k, v in alone.items() if k != "seconds"}
