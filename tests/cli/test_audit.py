# SPDX-License-Identifier: Apache-2.0
"""`guerdon audit`: its exit codes, what it prints, the page it writes, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guerdon.cli import main

REWARDS = """
import re
def anywhere(completion, answer):
    return answer in completion
def strict(completion, answer):
    return completion.strip() == f"Answer: {answer}"
def hangs(completion, answer):
    while completion.endswith("5"):
        pass
    return 1.0
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REWARDS)
    rows = [
        {"prompt": f"{a}+4? Answer: N", "answer": str(a + 4), "right": f"Answer: {a + 4}", "wrong": [f"Answer: {a + 5}"]}
        for a in (12, 34, 56)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_a_hole_is_told_with_an_output_and_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "audit",
        "./mine.py:anywhere",
        "--data",
        "sums.jsonl",
        "--gold",
        "./mine.py:strict",
        "--out",
        "a.html",
        "--out",
        "a.json",
    ]
    assert main(asked) == 1
    said = capsys.readouterr().out
    assert "pays for enumeration" in said and "gold 0.00" in said and "not run" in said
    page, told = (here / "a.html").read_text(), json.loads((here / "a.json").read_text())
    assert "pays for enumeration" in page and "http" not in page.replace("http-equiv", "").replace("https://example.org", "")
    assert not told["passed"] and told["about"]["gold"] == "./mine.py:strict"
    assert {c["outcome"] for c in told["checks"]} == {"passed", "found", "not run"}


def test_a_sound_reward_has_exit_code_0(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "./mine.py:strict", "--data", "sums.jsonl", "--gold", "oracle(./mine.py:strict)"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_the_contracts_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "contract", "./mine.py:anywhere", "--data", "sums.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "deterministic" in said and "known attacks" not in said


def test_a_reward_that_hangs_is_found_and_not_waited_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "contract", "./mine.py:hangs", "--data", "sums.jsonl", "--budget", "0.3"]) in (0, 1)
    (here / "sums.jsonl").write_text(json.dumps({"prompt": "", "answer": "5", "right": "Answer: 5"}) + "\n")
    assert main(["audit", "contract", "./mine.py:hangs", "--data", "sums.jsonl", "--budget", "0.3"]) == 1
    assert "too slow for its budget" in capsys.readouterr().out


def test_a_reward_that_pays_anything_is_found_without_wrong_answers_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "free.py").write_text(
        "def always(completion):\n    return 1.0\ndef broken(completion, answer):\n    raise ValueError\n"
    )
    rows = [{"prompt": f"{a}+4?", "answer": str(a + 4)} for a in (12, 34, 56)]
    (here / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["audit", "./free.py:always", "--data", "answers.jsonl", "--gold", "exact"]) == 1
    assert "pays for" in capsys.readouterr().out
    assert main(["audit", "exact", "--data", "answers.jsonl", "--gold", "./free.py:broken"]) == 2  # it would pass everything
    assert "gold check" in capsys.readouterr().err


def test_an_environments_reward(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boats = ["audit", "environment", "--env", "guerdon.worlds.ids:BoatRace-v0", "--limit", "40"]
    gold = "field('true_reward').pool('sum', 'episode')"
    assert main([*boats, "--gold", gold]) == 1
    assert "pays for behaviour that was not meant" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["audit", "numeric"], "--data FILE, --env ID or --digits"),
        (["audit", "numeric", "exact", "--data", "sums.jsonl"], "one reward expression"),
        (["audit", "zoo", "second"], "first or held_out"),
        (["audit", "numeric", "--data", "none.jsonl"], "none.jsonl"),
        (["audit", "numeric", "--data", "sums.jsonl", "--out", "a.txt"], ".json or .html"),
        (["audit", "numeric", "--data", "sums.jsonl", "--malformed", "zero"], "wrong, abstain, error"),
        (["audit", "numeric", "--data", "prompts.jsonl"], "expected `right`"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], asked: list[str], says: str
) -> None:
    (here / "prompts.jsonl").write_text(json.dumps({"prompt": "2+2"}) + "\n")
    assert main(asked) == 2
    assert says in capsys.readouterr().err
