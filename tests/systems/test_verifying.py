# SPDX-License-Identifier: Apache-2.0
"""From seeds to a verdict: figures, intervals, looks, what is stored, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from guerdon import systems
from guerdon.errors import CheckpointError, InputError
from guerdon.systems import intervals, table
from guerdon.systems.arms import points_of, runs_of
from guerdon.systems.curves import POINTS, curve_over_seeds
from guerdon.systems.intervals import Interval
from guerdon.systems.measuring import figure_of, higher_is_better
from guerdon.systems.picture import picture
from guerdon.systems.results import code_of, fingerprint, path_of, store, stored
from guerdon.systems.searching import best_of, refuse_unsearched, search
from guerdon.systems.system import Bound, Comparison, Exact, Metric
from guerdon.systems.telling import verdict_on
from guerdon.systems.verifying import Asked, judged, side_of, verdict_of, verified, verify

CLIMB = Path(__file__).parent / "data" / "fast_climb.py"


def comparison(**settings: Any) -> Comparison:
    arms = dict.fromkeys(("new", "old", "other"), lambda seed, start: None)
    given = {"better": "new", "than": "old", "metric": Metric("eval/x"), "budget": "some", **settings}
    return Comparison("The new one is better than the old.", arms, **given)


# ---- finding


def test_systems_are_found_by_walking_and_none_is_imported() -> None:
    program = (
        "import sys; from guerdon import systems; found = systems.slugs(); print('adastop' in found);"
        "print([m for m in sys.modules if m.startswith('guerdon.systems.') and m != 'guerdon.systems.system'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["True", "[]"]


def test_a_slug_is_its_file_and_its_folder_the_family() -> None:
    assert systems.family_of("adastop") == "evidence"
    assert systems.path_of("adastop").parts[-3:] == ("systems", "evidence", "adastop.py")
    assert systems.system_of("adastop").title == "AdaStop"


def test_a_name_that_is_not_there_gets_a_hint() -> None:
    with pytest.raises(InputError, match=r"no system named 'adastp'.*Did you mean 'adastop'\?"):
        systems.system_of("adastp")


def test_a_file_without_a_system_is_an_error_that_says_what_it_should_hold(tmp_path: Path) -> None:
    path = tmp_path / "nothing.py"
    path.write_text("SYSTEM = 3\n")
    with pytest.raises(InputError, match=r"nothing\.py: expected a `SYSTEM` of class System, got int"):
        systems.system_of(str(path))
    with pytest.raises(InputError, match=r"no file .*missing\.py"):
        systems.system_of(str(tmp_path / "missing.py"))


# ---- figures and intervals


def test_a_curve_that_should_go_down_is_reached_from_above_and_sooner_is_better() -> None:
    lines = [{"samples": 10 * i, "loss": x} for i, x in enumerate([3.0, 2.0, 1.0, 2.5], 1)]
    metric = Metric("loss", "reached", higher=False, at=2.0)
    assert figure_of(metric, lines, "run") == 20.0 and not higher_is_better(metric)
    assert not higher_is_better(Metric("eval/success", "reached", at=0.5)) and higher_is_better(Metric("eval/success"))
    assert figure_of(Metric("loss", "best", higher=False), lines, "run") == 1.0


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_training_that_diverged_has_no_figure(bad: float | None) -> None:
    lines = [{"step": 1, "eval/x": 0.5}, {"step": 2, "eval/x": bad}]
    with pytest.raises(InputError, match=r"new, seed 3: expected a finite `eval/x`, got .* at step 2"):
        figure_of(Metric("eval/x"), lines, "new, seed 3")


def test_a_metric_that_no_line_has_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no line has the claim's metric `eval/y`; there are eval/x, step"):
        figure_of(Metric("eval/y"), [{"step": 1, "eval/x": 0.5, "stage": "eval"}], "run")


def test_t_quantiles_and_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for p in (0.9, 0.975, 0.995):
        for freedom in (1, 1.7, 4, 8.3, 50, 1000):
            assert intervals.t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-6)
    a, b = [1.0, 2.0, 4.0, 3.5], [0.5, 0.1, 1.9]
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    found = intervals.of_difference(a, b, 0.9)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high)) and found.estimate == pytest.approx(
        1.79167, abs=1e-5
    )


def test_scores_without_spread_have_an_interval_without_width_and_one_score_none() -> None:
    assert intervals.of_difference([1.0, 1.0], [0.0, 0.0]) == Interval(1.0, 1.0, 1.0)
    assert intervals.of_mean([2.0]) == Interval(2.0, -math.inf, math.inf)


def test_curves_of_different_ranges_are_kept_where_all_are() -> None:
    curves = [[(float(x), float(x)) for x in range(101)], [(float(x), 0.0) for x in range(50, 201, 50)]]
    kept = curve_over_seeds(curves)
    assert (kept["x"][0], kept["x"][-1], len(kept["x"])) == (50.0, 100.0, POINTS)
    assert kept["median"] == pytest.approx([x / 2 for x in kept["x"]])


# ---- looks and verdicts

FAR, NEAR = [5.0, 5.1, 5.2, 5.3, 5.4], [1.0, 1.1, 1.2, 1.3, 1.4]


@pytest.mark.parametrize(
    ("metric", "new", "old", "verdict"),
    [
        (Metric("eval/x"), FAR, NEAR, "held"),
        (Metric("eval/x"), NEAR, FAR, "not held"),
        (Metric("eval/x", higher=False), NEAR, FAR, "held"),
        (Metric("eval/x", higher=False), FAR, NEAR, "not held"),
        (Metric("eval/x", "reached", at=0.5), NEAR, FAR, "held"),
        (Metric("eval/x"), NEAR, NEAR[::-1], None),
    ],
)
def test_five_seeds_that_do_not_overlap_decide_at_once(metric: Metric, new: list, old: list, verdict: str | None) -> None:
    claim = comparison(metric=metric)
    outcome, effect = judged(claim, {"new": new, "old": old})
    assert verdict_of(claim, outcome, effect, False) == verdict
    assert effect.estimate == pytest.approx(np.mean(new) - np.mean(old))
    assert verdict_of(claim, outcome, effect, True) == (verdict or "undecided")


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(0.0, "held"), (3.9, "held"), (4.1, "undecided"), (4.4, "not held")],  # the difference is 4.0 ± 0.23
)
def test_a_difference_below_the_smallest_worth_having_does_not_hold(effect: float, verdict: str) -> None:
    claim = comparison(effect=effect)
    outcome, interval = judged(claim, {"new": FAR, "old": NEAR})
    assert verdict_of(claim, outcome, interval, True) == verdict
    assert verdict_of(claim, outcome, interval, False) == (verdict if verdict == "held" else None)  # more seeds may tell


def test_a_difference_that_is_surely_too_small_does_not_hold_even_where_nothing_is_declared() -> None:
    claim = comparison(effect=1.0)
    same = {"new": NEAR * 3, "old": NEAR[::-1] * 3}
    assert verdict_of(claim, *judged(claim, same), True) == "not held"
    assert verdict_of(comparison(), *judged(comparison(), same), True) == "undecided"


@pytest.mark.parametrize(
    ("above", "interval", "verdict"),
    [
        (False, Interval(0.5, 0.4, 0.6), "held"),
        (False, Interval(1.5, 1.1, 1.9), "not held"),
        (False, Interval(1.0, 0.9, 1.1), "undecided"),
        (True, Interval(1.0, 1.0, 1.0), "held"),
    ],
)
def test_a_bound_is_decided_by_the_whole_interval(above: bool, interval: Interval, verdict: str) -> None:
    assert side_of(Bound("", lambda seed: 0.0, limit=1.0, above=above), interval) == verdict


@pytest.mark.parametrize(("found", "verdict"), [(1.0 + 1e-9, "held"), (1.1, "not held"), (math.nan, "not held")])
def test_an_identity_holds_to_its_tolerance(found: float, verdict: str) -> None:
    claim = Exact("", lambda: {"same": (2.0, 2.0), "one": (found, 1.0)}, tolerance=1e-6)
    assert verified(claim, Asked("here.py", 0, False))["verdict"] == verdict


@pytest.mark.parametrize(
    "settings",
    [{"better": "newer"}, {"than": "new"}, {"chosen": {"nobody": {"lr": 1}}}],
)
def test_a_comparison_of_arms_that_are_not_there_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"among the arms new, old, other"):
        comparison(**settings)


@pytest.mark.parametrize("settings", [{"how": "first"}, {"how": "reached"}, {"at": 0.5}])
def test_a_metric_without_its_level_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"metric `eval/x`: expected `how`"):
        Metric("eval/x", **settings)


# ---- what a stored verdict belongs to


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"statement": "It is worse."}, False),
        ({"metric": Metric("eval/x", "mean")}, False),
        ({"chosen": {"new": {"lr": 1.0}}}, False),
        ({"better": "old", "than": "new"}, False),
        ({"effect": 0.1}, False),
        ({"first_seed": 2000}, False),
        ({"tried": "three more rates"}, True),
        ({"differences": ("smaller",)}, True),
    ],
)
def test_a_fingerprint_changes_with_what_is_claimed_and_with_nothing_else(change: dict[str, Any], same: bool) -> None:
    assert (fingerprint(dataclasses.replace(comparison(), **change)) == fingerprint(comparison())) is same


def test_code_counts_and_words_do_not(tmp_path: Path) -> None:
    text, path = CLIMB.read_text(encoding="utf-8"), tmp_path / "climb.py"

    def code(old: str, new: str) -> str:
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return code_of(str(path))

    known = code("SYSTEM", "SYSTEM")
    for words in (
        ('tried="nothing else"', 'tried="more"'),
        ("Go up,", "Walk up,"),
        ('budget="20', 'budget="twenty'),
        ("\n\n\n", "\n\n"),
    ):
        assert code(*words) == known, words
    for deeds in (
        ("gain=0.1", "gain=0.2"),
        ('"eval/height"', '"eval/x"'),
        ("start, lr, 0.2)", "start, lr, 0.3)"),
        ("limit=1.0", "limit=2.0"),
    ):
        assert code(*deeds) != known, deeds


def test_results_of_another_schema_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store("mine.py", {"claims": []})
    assert stored("mine.py") == {"schema": 1, "claims": []}
    path_of("mine.py").write_text('{"schema": 7}')
    with pytest.raises(CheckpointError, match="expected schema 1, got 7"):
        stored("mine.py")


# ---- the search


def test_the_best_point_is_that_of_the_best_mean_the_way_the_metric_goes() -> None:
    rows = [{"choice": {"lr": lr}, "scores": scores} for lr, scores in ((1, [0.0, 3.0]), (2, [1.0, 1.0]), (3, [0.5, 0.7]))]
    assert best_of(comparison(), rows) == {"lr": 1}
    assert best_of(comparison(metric=Metric("eval/x", higher=False)), rows) == {"lr": 3}


def test_a_grid_is_every_combination() -> None:
    assert points_of({"lr": (1, 2), "beta": (0.0, 0.5)})[1:3] == [{"lr": 1, "beta": 0.5}, {"lr": 2, "beta": 0.0}]


# ---- all of it, with trainings of milliseconds


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory in which the stand-in was searched and verified, and what verify returned."""
    place = tmp_path_factory.mktemp("climbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with pytest.raises(
            InputError, match=r"expected a stored search over the grid of claim 1, got none\. Run `guerdon systems search"
        ):
            verify(str(CLIMB))
        assert search(str(CLIMB), seeds=2)["best"] == {"fast": {"lr": 0.3}, "slow": {"lr": 0.3}}
        return place, verify(str(CLIMB), full=True, command=["guerdon", "systems", "verify"])


def test_a_claim_is_verified_from_end_to_end(climbed: tuple[Path, dict[str, Any]]) -> None:
    place, result = climbed
    first, second, third = result["claims"]
    assert [c["verdict"] for c in result["claims"]] == ["held", "held", "held"]
    assert first["seeds"] == [1000, 1001, 1002, 1003, 1004] and len(first["looks"]) == 1
    look = first["looks"][0]
    assert look["statistic"] > look["boundary"] and look["declared"] == "larger"
    expected = [-(((1 + 0.1 * np.random.default_rng(s).standard_normal()) * 0.85**20) ** 2) for s in first["seeds"]]
    assert first["arms"]["fast"]["scores"] == pytest.approx(expected, rel=1e-4)
    assert set(first["arms"]) == {"fast", "slow", "middle"} and first["arms"]["slow"]["core_seconds"] > 0
    assert first["arms"]["fast"]["curve"]["x"][-1] == 20.0
    measured = [np.random.default_rng(s).standard_normal() for s in range(1000, 1010)]
    assert second["scores"] == pytest.approx(measured) and second["effect"]["estimate"] == pytest.approx(np.mean(measured))
    assert third["values"]["sum"] == {"found": 2.0, "expected": 2.0, "error": 0.0}
    kept = json.loads((place / "runs" / "systems" / "fast-climb" / "verdict.json").read_text())
    assert kept["claims"][0]["looks"] and kept["search"]["0"]["seeds"] == [0, 1] and kept["machine"]["cores"] >= 1


def test_what_was_trained_is_not_trained_again(climbed: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    place, result = climbed
    monkeypatch.chdir(place)
    runs = {path: path.stat().st_mtime_ns for path in place.rglob("fast-s*/result.json")}
    assert len(runs) == 5
    again = verify(str(CLIMB))
    assert {path: path.stat().st_mtime_ns for path in place.rglob("fast-s*/result.json")} == runs
    assert again["claims"][0]["arms"]["fast"] == result["claims"][0]["arms"]["fast"]


def test_changed_code_is_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fast_climb.py"
    text = CLIMB.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    before = runs_of(str(path), "verify-1")
    path.write_text(text.replace("gain=0.1", "gain=0.2"), encoding="utf-8")
    assert runs_of(str(path), "verify-1") != before


def test_a_choice_that_is_not_the_best_is_refused(climbed: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(climbed[0])
    refuse_unsearched(str(CLIMB), 0)
    worse = climbed[0] / "fast_climb.py"
    worse.write_text(CLIMB.read_text().replace('"fast": {"lr": 0.3}', '"fast": {"lr": 0.1}'))
    with pytest.raises(
        InputError, match=r"expected `chosen` of arm fast to be the best of the stored search, lr=0\.3, got lr=0\.1"
    ):
        refuse_unsearched(str(worse), 0)
    other = climbed[0] / "other" / "fast_climb.py"
    other.parent.mkdir()
    other.write_text(CLIMB.read_text().replace("[0.1, 0.3]", "[0.1, 0.3, 0.5]"))
    with pytest.raises(InputError, match="over another grid"):
        refuse_unsearched(str(other), 0)


def test_the_picture_is_drawn_beside_the_runs_and_says_what_it_shows(climbed: tuple[Path, dict[str, Any]]) -> None:
    place, result = climbed
    first, second, third = result["claims"]
    drawn = ElementTree.fromstring(picture(first))
    texts = [t.text for t in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fast", "slow", "middle", "samples"} <= set(texts) and "eval/height at the end, each seed" in texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 15
    assert len(list(ElementTree.fromstring(picture(second)).iter("{http://www.w3.org/2000/svg}circle"))) == 10
    assert picture(third) == ""
    beside = (place / first["directory"] / "picture.svg").read_text()
    assert ElementTree.fromstring(beside) is not None and ">fast</text>" in beside


# ---- the page


def test_a_verdict_of_another_claim_is_not_shown_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "fast_climb.py"
    mine.write_text(CLIMB.read_text(), encoding="utf-8")
    claims = systems.system_of(str(mine)).claims
    assert verdict_on(str(mine)) == "not verified"
    found = [{"verdict": v, "fingerprint": fingerprint(c)} for v, c in zip(("held", "held", "not held"), claims, strict=True)]
    store(str(mine), {"claims": found, "code": code_of(str(mine)), "date": "2026-01-02"})
    assert verdict_on(str(mine)) == "held; 1 of 2 other claims not (2026-01-02)"
    store(str(mine), {"code": "other"})
    assert verdict_on(str(mine)) == "held; 1 of 2 other claims not (2026-01-02, code changed since)"
    store(str(mine), {"claims": [{**found[0], "fingerprint": "other"}]})
    assert verdict_on(str(mine)) == "not verified since the claim changed"


def test_the_page_and_its_pictures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.systems, "slugs", lambda: ["adastop"])
    written = table.write(tmp_path / "systems.md")
    assert [p.relative_to(tmp_path).as_posix() for p in written] == ["systems.md", "systems/adastop.svg"]
    page = written[0].read_text()
    for part in (
        "[AdaStop](#adastop)",
        "(https://arxiv.org/abs/2306.10882)",
        "## evidence",
        "](systems/adastop.svg)",
        "**held**",
        "cores of",
    ):
        assert part in page, part
