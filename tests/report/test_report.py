# SPDX-License-Identifier: Apache-2.0
"""The report's content, read from the page as text; how it looks is tested in a browser next door."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.report import write_report
from guerdon.report.completions import moments
from guerdon.report.curves import over_seeds, reaches, thinned
from guerdon.report.page import contents
from guerdon.report.plot import log_axis, nice_ticks
from guerdon.report.reading import read_run
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, Status, scores_of
from tests.report import make_run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run.write_study(tmp_path_factory.mktemp("runs") / "quickstart")


def page_of(*directories: Path, out: Path) -> str:
    return write_report(list(directories), out).read_text(encoding="utf-8")


def words(page: str, pattern: str) -> str:
    """The text of the first element that ``pattern`` matches, without tags."""
    found = re.search(pattern, page, re.DOTALL)
    assert found, pattern
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", found[1]))).strip()


# ---- the verdict


def test_headline_gives_the_means_of_result_json(study: Path, tmp_path: Path) -> None:
    stored = json.loads((study / "result.json").read_text())["arms"]
    headline = words(page_of(study, out=tmp_path / "r.html"), r'<h1 id="verdict">(.*?)</h1>')
    dense, outcome, shuffled = (f"{100 * fmean(stored[arm]['success']):.0f} %" for arm in ("dense", "outcome", "shuffled"))
    assert headline == f"dense reached {dense} held-out success; outcome {outcome}, shuffled {shuffled}."


def test_verdict_follows_changed_results(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    make_run.write_study(copy, seeds=2, lengths=False)
    result = json.loads((copy / "result.json").read_text())
    result["arms"]["outcome"]["success"], result["arms"]["dense"]["success"] = [0.5, 0.7], [0.6, 0.65]
    result["arms"]["shuffled"]["success"] = [0.6, 0.61]
    (copy / "result.json").write_text(json.dumps(result))
    page = page_of(copy, out=tmp_path / "r.html")
    assert (
        words(page, r"<h1[^>]*>(.*?)</h1>")
        == "No arm came out ahead: held-out success is outcome 60 %, dense 62 %, shuffled 60 %."
    )
    assert "dense and outcome are not told apart" in words(page, r'<ul class="details" id="gaps">(.*?)</ul>')


def test_a_study_without_result_json_uses_the_last_evaluation(tmp_path: Path) -> None:
    make_run.write_study(tmp_path / "s", seeds=1)
    want = contents([read_run(tmp_path / "s")])["verdict"].headline
    for path in tmp_path.rglob("result.json"):
        path.unlink()
    found = contents([read_run(tmp_path / "s")])
    assert sorted(re.findall(r"\w+ \d+ %|reached \d+ %", found["verdict"].headline)) == sorted(
        re.findall(r"\w+ \d+ %|reached \d+ %", want)
    )
    assert "result.json is missing in s." in found["notes"]


def test_the_shared_start_is_no_arm(study: Path) -> None:
    assert [arm.name for arm in read_run(study).arms] == ["outcome", "dense", "shuffled"]


# ---- curves


@given(st.lists(st.lists(st.floats(-10, 10), min_size=5, max_size=5), min_size=1, max_size=4))
def test_seeds_with_the_same_samples_are_not_interpolated(values: list[list[float]]) -> None:
    curve = over_seeds([([0.0, 1.0, 2.0, 4.0, 8.0], y) for y in values])
    assert np.allclose(curve.mean, np.mean(values, 0))
    assert (curve.low, curve.high) == (np.min(values, 0).tolist(), np.max(values, 0).tolist())


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_the_mean_and_the_limit(y: list[float], most: int) -> None:
    (xs, ys), width = thinned(([float(i) for i in range(len(y))], y), most)
    assert len(xs) == len(ys) <= most
    sizes = [min(width, len(y) - i) for i in range(0, len(y), width)]
    assert np.isclose(np.average(ys, weights=sizes), np.mean(y), atol=1e-9)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_enclose_the_values(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(ticks) <= 8


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=5))
def test_log_axis_encloses_the_values(values: list[float]) -> None:
    axis = log_axis(values)
    assert all(0 <= axis.at(v) <= 100 for v in values)


def test_learning_curve_holds_every_evaluation(study: Path) -> None:
    learning = contents([read_run(study)])["learning"]
    assert (learning.y_names, learning.x_names) == (["sampled", "greedy", "pass@4"], ["by samples", "by time"])
    assert [(p.y, p.x) for p in learning.panels] == [(j, i) for j in range(3) for i in range(2)]
    lines = [json.loads(line) for line in (study / "dense-s1" / "metrics.jsonl").read_text().splitlines()]
    evals = [line for line in lines if line["stage"] == "eval"]
    dense = next(tip for tip in learning.panels[0].chart.tips if tip["label"] == "dense")
    assert [p[2] for p in dense["points"]] == [f"{line['samples']:,} samples" for line in evals]


def test_a_step_written_twice_counts_once_and_the_later_line_stands(tmp_path: Path) -> None:
    make_run.write_seed(tmp_path / "run", "dense", 0, tags=False)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"stage": "eval", "step": make_run.STEPS, "samples": 2560, "eval/success": 0.123}) + "\n")
    (seed,) = read_run(tmp_path / "run").arms[0].seeds
    x, y = seed.points("eval", "samples", "eval/success")
    assert len(x) == make_run.STEPS // make_run.EVERY + 1
    assert y[-1] == 0.123


def test_an_unfinished_study_is_drawn_inside_its_axes(tmp_path: Path) -> None:
    """One seed is far ahead of the others: its own line is longer than the mean."""
    make_run.write_study(tmp_path / "s", seeds=2, lengths=False)
    (tmp_path / "s" / "result.json").unlink()
    behind = tmp_path / "s" / "dense-s1" / "metrics.jsonl"
    behind.write_text("".join(behind.read_text().splitlines(keepends=True)[:14]))
    found = contents([read_run(tmp_path / "s")])
    charts = [p.chart for p in found["learning"].panels] + [c for arm in found["arms"] for c in arm.charts] + found["training"]
    places = [float(v) for chart in charts for path in chart.paths for v in re.findall(r"-?[\d.]+", path["d"])]
    assert len(places) > 1000
    assert min(places) >= 0
    assert max(places) <= 100
    dense = next(tip for tip in found["learning"].panels[0].chart.tips if tip["label"] == "dense")
    assert len(dense["points"]) == 3  # evaluations at steps 0, 5 and 10, which both seeds have


# ---- chain lengths


def test_seeds_that_never_arrive_are_marked_and_not_drawn(study: Path) -> None:
    stored = make_run.stored_lengths()["points"]
    lengths = contents([read_run(study)])["lengths"]
    missing = [p for p in stored if p["samples_to_half"] is None]
    assert missing
    assert {m["text"] for m in lengths.chart.marks} == {
        f"outcome: {sum(p['length'] == k for p in missing)} of 3 seeds not reached by 60,000 samples"
        for k in {p["length"] for p in missing}
    }
    dots = sum(path["d"].count("M") for path in lengths.chart.paths if path["kind"] == "dot")
    assert dots == len(stored) - len(missing)


def test_a_middle_seed_that_never_arrives_has_no_number() -> None:
    points = [{"arm": "a", "length": 3, "seed": s, "samples_to_half": n} for s, n in enumerate([100, None, None])]
    assert reaches(points)[0].middle is None


def test_lengths_may_lie_in_a_file_beside_the_result(tmp_path: Path) -> None:
    make_run.write_study(tmp_path / "s", seeds=1, lengths=False)
    assert contents([read_run(tmp_path / "s")])["lengths"] is None
    (tmp_path / "s" / "lengths.json").write_text(json.dumps(make_run.stored_lengths()))
    result = json.loads((tmp_path / "s" / "result.json").read_text())
    (tmp_path / "s" / "result.json").write_text(json.dumps({**result, "lengths": "lengths.json"}))
    assert contents([read_run(tmp_path / "s")])["lengths_origin"] == "Stored with s in lengths.json."


def test_lengths_known_beforehand_are_not_called_this_runs(tmp_path: Path) -> None:
    make_run.write_study(tmp_path / "s", seeds=1, lengths=False)
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    config["about"]["lengths"] = make_run.stored_lengths()
    (tmp_path / "s" / "config.json").write_text(json.dumps(config))
    page = page_of(tmp_path / "s", out=tmp_path / "r.html")
    assert "not part of this run. To repeat it: <code>guerdon run lengths</code>" in page


# ---- completions


def test_tokens_are_the_completion_and_their_rewards_the_scores(study: Path) -> None:
    seed = next(arm for arm in read_run(study).arms if arm.name == "dense").seeds[0]
    found = moments(seed)
    assert [(m.step, m.when) for m in found] == [(1, "first"), (make_run.STEPS // 2, "middle"), (make_run.STEPS, "last")]
    rollouts = Rollouts.load(seed.directory / "rollouts" / "step-000040.parquet")
    reward = Scores.load(seed.directory / "scores" / "step-000040.parquet").reward()
    for sample, row in zip(found[-1].samples, (0, 4, 8), strict=True):  # the first row of each group of four
        assert "".join(t.text for t in sample.tokens[:-1]) == rollouts.fields["completion"].values[row][0]
        assert sample.tokens[-1].text == "end"
        assert torch.allclose(torch.tensor([t.reward for t in sample.tokens]), reward[row])


def test_text_between_steps_is_shown_as_not_the_policys(tmp_path: Path) -> None:
    rollouts, _ = make_run.rollouts_of("dense", 1, 0)
    mask = rollouts.mask.clone()
    mask[0, 1] = False  # a tool's token
    spans = rollouts.fields["offset"].values.clone()
    spans[0, 2, 0] += 1  # a character that no step wrote
    (tmp_path / "rollouts").mkdir()
    rollouts.replace(mask=mask).with_field("offset", "step", spans).save(tmp_path / "rollouts" / "step-000001.parquet")
    (moment,) = moments(read_run_seed(tmp_path))
    assert not moment.scored
    tokens = moment.samples[0].tokens
    assert [t.state for t in tokens[:4]] == ["taken", "given", "given", "taken"]
    assert "".join(t.text for t in tokens[:-1]) == rollouts.fields["completion"].values[0][0]


def test_a_reward_that_is_not_ok_is_shown_as_failed_with_its_reason(tmp_path: Path) -> None:
    rollouts, _ = make_run.rollouts_of("outcome", 1, 0)
    n = len(rollouts)
    values = torch.zeros(n, 1)
    values[0] = torch.nan
    status = torch.where(values.isnan(), int(Status.TIMEOUT), int(Status.OK)).to(torch.int8)
    slow = Component("slow", "episode", values, status, reasons={(0, 0): "no answer within 2 s"})
    scores = scores_of(rollouts, [slow])
    total = slow.replace(name="total")
    for kind, what in (
        ("rollouts", rollouts),
        ("scores", Scores(total, scores.components, scores.trace, scores.levels, scores.mask)),
    ):
        (tmp_path / kind).mkdir()
        what.save(tmp_path / kind / "step-000007.parquet")
    sample = moments(read_run_seed(tmp_path))[0].samples[0]
    assert sample.tokens[-1].state == "failed"
    assert sample.tokens[-1].reward is None
    assert sample.total == "no answer within 2 s"


def read_run_seed(directory: Path):
    (directory / "metrics.jsonl").write_text('{"step": 1, "stage": "train"}\n')
    return read_run(directory).arms[0].seeds[0]


# ---- the page


def test_what_a_study_says_about_itself_is_on_the_page(study: Path, tmp_path: Path) -> None:
    page = html.unescape(page_of(study, out=tmp_path / "r.html"))
    for sees, reward, tree in make_run.ARMS.values():
        assert all(text in page for text in (sees, reward, tree))
    assert "Add a row of digits one at a time" in page
    assert "sloppy on purpose" in page
    assert words(page, r"<h3>grid.points</h3>.*?<tbody>(.*?)</tbody>") == "0.00030.410.0010.93"


def test_a_single_run_has_the_same_page_with_fewer_parts(tmp_path: Path) -> None:
    make_run.write_seed(tmp_path / "mine", "dense", 1, tags=False, timeouts=0.04)
    page = page_of(tmp_path / "mine", out=tmp_path / "r.html")
    assert words(page, r"<h1[^>]*>(.*?)</h1>").startswith("Held-out success went from ")
    assert "steps: ran out of time" in page
    assert 'id="lengths"' not in page


def test_missing_pieces_are_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "metrics.jsonl").write_text(
        '{"step": 1, "samples": 4, "reward/total": 0.25}\n{"step": 2, "reward/total": 0.75}\n{"st'
    )
    page = html.unescape(page_of(tmp_path / "bare", out=tmp_path / "r.html"))
    for note in (
        "The mean reward went from 0.25 to 0.75.",
        "This run has no evaluation on held-out tasks.",
        "No evaluation on held-out tasks was stored, so there is no learning curve.",
        "The run's configuration does not hold the reward's expression.",
        "No completions with text were saved for this run.",
        "config.json is missing in bare.",
        "The last line of bare/metrics.jsonl is cut off and left out.",
    ):
        assert note in page, note


def test_two_runs_are_compared_arm_by_arm_and_their_settings_differ_where_they_do(study: Path, tmp_path: Path) -> None:
    make_run.write_study(tmp_path / "again", seeds=2, lengths=False)
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    result["arms"]["outcome"]["success"] = [0.8, 0.9]
    (tmp_path / "again" / "result.json").write_text(json.dumps(result))
    runs = [read_run(study), read_run(tmp_path / "again")]
    found = contents(runs)
    assert found["verdict"].headline == "again is ahead of quickstart in outcome; not told apart: dense, shuffled."
    assert found["differences"] == [
        ("command", '["guerdon", "run", "quickstart", "seeds=3"]', '["guerdon", "run", "quickstart", "seeds=2"]'),
        ("arguments.seeds", "3", "2"),
    ]
    legend = found["learning"].panels[0].chart.legend
    assert [(e["label"], e["dashed"]) for e in legend[:2]] == [("quickstart · outcome", False), ("again · outcome", True)]
    assert legend[0]["colour"] == legend[1]["colour"] != legend[2]["colour"]


def test_text_from_a_run_cannot_become_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    make_run.write_seed(tmp_path / "run", "dense", 0, tags=False)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["about"]["reward"] = config["about"]["task"] = evil
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"stage": "train", "step": 41, "samples": 2624, f"reward/{evil}'": 1.0, "reward/total": 1.0}) + "\n"
        )
    page = page_of(tmp_path / "run", out=tmp_path / "r.html")
    assert "<script>alert" not in page
    assert page.count("<script") == 1


def test_the_page_refers_to_nothing_outside_itself(study: Path, tmp_path: Path) -> None:
    page = page_of(study, out=tmp_path / "r.html")
    assert re.findall(r'(?:src|href)="(?!data:)|url\(|@import|https?://', page) == []
    assert len(page.encode()) < 1_000_000


# ---- wrong input


def test_errors_name_the_directory_and_the_cause(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="one run directory, or two to compare, got 3"):
        write_report([tmp_path] * 3)
    with pytest.raises(InputError, match="nowhere` should be a run directory, got nothing there"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"empty` should hold metrics\.jsonl"):
        write_report([tmp_path / "empty"])


def test_a_broken_line_names_its_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}{"step"\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"line 2 of `.*metrics\.jsonl`"):
        read_run(tmp_path)
