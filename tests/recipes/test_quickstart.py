# SPDX-License-Identifier: Apache-2.0
"""What the quickstart shows beside its own run is measured by longer ones, kept with their commands."""

import json
from pathlib import Path

import pytest

from guerdon.errors import InputError
from guerdon.recipes import make, quickstart
from guerdon.recipes.quickstart_grid import summarise as choose


def stored(name: str) -> dict:
    return json.loads((quickstart.DATA / name).read_text())


def test_the_learning_rate_is_the_grids_choice_for_both_arms() -> None:
    assert stored("quickstart_grid.json")["chosen"] == {"dense": quickstart.LEARNING_RATE, "outcome": quickstart.LEARNING_RATE}


def test_the_choice_is_the_smallest_median_and_not_reached_counts_as_the_budget(tmp_path: Path) -> None:
    reached = {"dense@0.1": [100, None, None], "dense@0.2": [300, 200, 400]}
    for name, seeds in reached.items():
        for seed, samples in enumerate(seeds):
            run = tmp_path / f"{name}-s{seed}"
            run.mkdir()
            line = {"stage": "eval", "samples": samples or 900, "eval/success": 0.2 if samples is None else 0.5}
            (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = choose(1000, {"arms": dict.fromkeys(reached), "seeds": [0, 1, 2]}, tmp_path)["grid"]
    assert found["samples_to_half"]["dense"] == {"0.1": [100, None, None], "0.2": [300, 200, 400]}
    assert found["chosen"] == {"dense": 0.2}


def test_the_verdict_is_the_worst_gap_over_seeds_sampled_or_greedy() -> None:
    arms = {
        "dense": {"success": [0.9, 0.8], "greedy": [1.0, 0.7]},
        "outcome": {"success": [0.0, 0.1], "greedy": [0.0, 0.15]},
    }
    verdict = quickstart.summarise({"arms": arms, "seeds": [0, 1]}, Path())["verdict"]
    assert abs(verdict["worst_gap_points"]["outcome"] - 55) < 1e-9
    assert not verdict["holds"]
    arms["dense"]["greedy"][1] = 0.75
    assert quickstart.summarise({"arms": arms, "seeds": [0, 1]}, Path())["verdict"]["holds"]


@pytest.mark.parametrize("wrong", ["abc", (1, "b"), 1.5, True, ()])
def test_seeds_that_are_no_integers_are_refused_before_anything_is_made(wrong):
    with pytest.raises(InputError, match="quickstart: `seeds` should be integers, such as 0,1,2, got"):
        make("quickstart", {"seeds": wrong})
    for right in (3, (3, 4), [3, 4]):
        assert make("quickstart", {"seeds": right}).seeds == tuple(right if not isinstance(right, int) else [right])
