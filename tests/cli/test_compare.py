# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from guerdon.cli import main
from guerdon.rollouts import Rollouts

MINE = """
from guerdon import reward

def picky(completion, answer):
    if "?" in completion:
        raise ValueError("a question")
    return None if "!" in completion else 2.0 * (completion == answer)

@reward(level="step")
def upright(observation):
    return 1 - abs(float(observation[2]))

@reward(level="step")
def shaped(observation, next_observation):
    p = lambda o: float(o[0]) ** 2
    return upright(observation=observation) + 0.9 * p(next_observation) - p(observation)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with rewards and with data: three prompts, three completions each."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    said = {"1+1=": ("2", "two is 2", "3 and more"), "2+2=": ("4?", "4", "5"), "2+3=": ("5!", "5", "6 by a long way")}
    rows = [{"prompt": p, "completion": c, "answer": str(eval(p[:-1]))} for p, cs in said.items() for c in cs]
    Path("d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_two_totals_in_figures(here: Path, capsys) -> None:
    assert main(["compare", "exact", "length", "--data", "d.jsonl", "--rows", "2", "--out", "o.json"]) == 0
    found = json.loads(Path("o.json").read_text())
    assert found["first"] == "exact" and found["rows"] == found["both_ok"] == 9 and found["groups"] == 3
    # exact: 1 0 0 | 0 1 0 | 0 1 0; length: 1 8 10 | 2 1 1 | 2 1 15
    pairs = {"same": 0, "opposite": 5, "tied_first": 3, "tied_second": 1, "tied_both": 0}
    assert found["pairs"] == pairs and found["disagreement"]["value"] == 1.0
    assert found["pearson"]["value"] < 0 and found["spearman"]["low"] <= found["spearman"]["value"] <= found["spearman"]["high"]
    assert [w["row"] for w in found["most_different"]] == [0, 4] and found["most_different"][0]["completion"] == "2"
    printed = capsys.readouterr().out
    assert "pairs ranked the other way round" in printed and "5 of 5" in printed and "9 judged by both" in printed


def test_rows_that_one_of_them_cannot_judge_are_told_and_no_zeros(here: Path, capsys) -> None:
    assert main(["compare", "numeric", "mine.py:picky", "--data", "d.jsonl", "--out", "o.json"]) == 0
    found = json.loads(Path("o.json").read_text())
    assert found["both_ok"] == 7 and found["rows"] == 9
    told = {(s["first"], s["second"]): (s["rows"], s["first_row"]) for s in found["statuses"]}
    assert told == {("ok", "error"): (1, 3), ("ok", "abstain"): (1, 6)}
    printed = capsys.readouterr().out
    assert "ValueError: a question" in printed and "Rows with another status" in printed


def test_saved_rollouts_and_rewards_that_are_the_same(here: Path, capsys) -> None:
    Rollouts.from_text(["1+1="] * 3, ["2", "3", "4"], answer=["2"] * 3, group=[0, 0, 0]).save("r.parquet")
    assert main(["compare", "numeric", "2*numeric", "--data", "r.parquet", "--out", "o.json"]) == 0
    found = json.loads(Path("o.json").read_text())
    assert found["spearman"] == {"value": pytest.approx(1.0), "low": None, "high": None}  # one group: no interval
    assert found["most_different"] == [] and found["statuses"] == [] and found["disagreement"]["value"] == 0
    assert "They disagree" not in capsys.readouterr().out


def test_in_an_environment(here: Path, capsys) -> None:
    few = ["--env", "CartPole-v1", "--states", "30", "--branches", "2", "--gamma", "0.9", "--out"]
    assert main(["compare", "./mine.py:upright", "./mine.py:shaped", *few, "o.json"]) == 0
    found = json.loads(Path("o.json").read_text())
    assert found["distances"]["epic"]["estimate"]["value"] < 1e-9 and found["distances"]["starc"]["estimate"]["value"] < 0.2
    assert main(["compare", "environment", "./mine.py:upright", *few, "p.json"]) == 0
    printed = capsys.readouterr().out
    assert "STARC-VAL" in printed and "EPIC: it needs the reward of transitions that did not happen" in printed
    assert json.loads(Path("p.json").read_text())["distances"]["epic"]["estimate"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["exact", "length"], "expected --data FILE or --env ID, one of them, got neither"),
        (["exact", "length", "--data", "d.jsonl", "--env", "CartPole-v1"], "one of them, got both"),
        (["exact", "lenght", "--data", "d.jsonl"], "did you mean length"),
        (["exact", "length", "--data", "."], "--data should be one file"),
        (["exact", "length", "--data", "no.jsonl"], "no.jsonl"),
        (["exact", "length", "--data", "d.jsonl", "--out", "o.txt"], "--out should be a .json file"),
        (["exact", "length", "--data", "d.jsonl", "--out", "mine.json"], "exists already"),
        (["exact", "environment", "--env", "CartPole-v1"], "it has parts of the episode"),
        (["environment", "environment", "--env", "CartPol-v1"], "no environment 'CartPol-v1'"),
        (["environment", "environment", "--env", "CartPole-v1", "--gamma", "1"], "`gamma` should be at least 0 and below 1"),
        (["environment", "environment", "--env", "CartPole-v1", "--states", "1"], "`states` should be 2 or more"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(arguments: list[str], told: str, here: Path, capsys) -> None:
    Path("mine.json").write_text("{}")
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == "" and "Traceback" not in captured.err
