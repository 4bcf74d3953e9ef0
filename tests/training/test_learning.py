# SPDX-License-Identifier: Apache-2.0
"""A learner with a loop of its own: its lines are a run's metrics, its last line the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.errors import InputError
from guerdon.training.recipe import Learning
from guerdon.training.run import run, run_recipe

CONFIG = {"recipe": "coins", "arguments": {}}


def coins(lines: int = 3, breaks: int = 0) -> Learning:
    def thrown() -> Iterator[dict[str, Any]]:
        heads = 0
        for n in range(1, lines + 1):
            if n == breaks:
                raise KeyboardInterrupt
            heads += int(torch.rand(()) < 0.5)
            yield {"samples": n, "heads": heads} if n < lines else {"samples": n, "eval/share": heads / n}

    return Learning("coins", thrown, seed=7, total_steps=lines, about={"title": "coins"})


class Record:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, config: Any, directory: Path, step: int) -> None:
        self.told.append(("start", config["total_steps"], config["about"]))

    def metrics(self, step: int, metrics: Any) -> None:
        self.told.append((step, metrics["stage"], metrics["samples"], metrics.get("arm")))

    def finish(self, result: Any) -> None:
        self.told.append("finish")


def test_lines_become_metrics_and_the_last_one_the_result(tmp_path: Path) -> None:
    told = Record()
    result = run_recipe(coins(), tmp_path / "run", [told], CONFIG, {"arm": "a"})
    assert told.told == [
        ("start", 3, {"title": "coins"}),
        (1, "train", 1, "a"),
        (2, "train", 2, "a"),
        (3, "eval", 3, "a"),
        "finish",
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["stage"], x["arm"]) for x in lines] == [(1, "train", "a"), (2, "train", "a"), (3, "eval", "a")]
    assert result["samples"] == result["steps"] == 3 and result["eval/share"] == lines[2]["eval/share"] and "heads" not in result
    assert json.loads((tmp_path / "run" / "config.json").read_text())["about"] == {"title": "coins"}
    assert 0 <= result["time/process"] < 60


def test_its_seed_decides_and_the_caller_s_random_numbers_go_on_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = (run_recipe(coins(20), tmp_path / name, [], CONFIG)["eval/share"] for name in "ab")
    assert first == second == pytest.approx(11 / 20, abs=0.4)
    assert torch.equal(torch.rand(3), expected)


def test_an_interrupted_one_begins_anew_and_a_finished_one_is_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_recipe(coins(breaks=3), tmp_path, [], CONFIG)
    assert not (tmp_path / "result.json").exists()
    result = run_recipe(coins(), tmp_path, [], CONFIG)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert run_recipe(coins(breaks=1), tmp_path, [], CONFIG) == result


def test_one_without_a_line_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"learning `coins`: expected `lines\(\)` to yield a line or more, got none"):
        run_recipe(coins(0), tmp_path, [], CONFIG)
    assert not (tmp_path / "result.json").exists()


def test_run_takes_one_as_it_takes_a_recipe(tmp_path: Path) -> None:
    result = run(lambda recipe, arguments: coins(**arguments), "coins", {"lines": 2}, tmp_path / "run")
    assert result["steps"] == 2
    with pytest.raises(InputError, match="holds another run"):
        run(lambda recipe, arguments: coins(**arguments), "coins", {"lines": 4}, tmp_path / "run")
