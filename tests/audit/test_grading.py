# SPDX-License-Identifier: Apache-2.0
"""The auditor on the zoo: some specimens of each domain now, all of them in stored results that the page shows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from guerdon.audit.auditing import Audit
from guerdon.audit.findings import Finding
from guerdon.audit.grading import Graded, graded, names, rates, shows
from guerdon.audit.zoo import HALVES, Specimen, specimens

ROOT = Path(__file__).resolve().parents[2]
SOME = {
    "gold-anywhere",
    "judge-dice",
    "quiet-zero",
    "answer-line",
    "fields-f1",
    "quick-end",
    "shaped-by-potential",
    "ink-paid",
    "nearest-of-label",
}


def test_specimens_of_every_domain_are_graded_right() -> None:
    found = list(graded("first", lambda domain, s: s.name in SOME))
    assert {g.specimen.name for g in found} == SOME and {g.domain for g in found} == {"text", "control", "image"}
    assert [g.specimen.name for g in found if not g.right] == []
    assert rates(found)["hits"].value == 1 and rates(found)["alarms"].value == 0


@pytest.mark.parametrize("half", HALVES)
def test_stored_results_are_of_the_specimens_that_are_there(half: str) -> None:
    stored = json.loads((ROOT / f"benchmarks/results/zoo_{half}.json").read_text())
    assert [(s["domain"], s["name"], s["defect"]) for s in stored["specimens"]] == [
        (d, s.name, s.defect) for d, s in specimens(half)
    ]
    bad = [s["right"] for s in stored["specimens"] if s["defect"]]
    assert stored["rates"]["hits"]["value"] == pytest.approx(sum(bad) / len(bad))


def test_the_first_half_is_found_and_leaves_the_good_ones_alone() -> None:
    stored = json.loads((ROOT / "benchmarks/results/zoo_first.json").read_text())["rates"]
    assert stored["hits"]["value"] >= 0.9 and stored["alarms"]["value"] <= 0.05
    assert stored["hits"]["n"] >= 15 and stored["alarms"]["n"] >= 15


def test_the_page_shows_the_stored_results() -> None:
    spec = importlib.util.spec_from_file_location("zoo_table", ROOT / "docs/zoo_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/auditing.md").read_text(encoding="utf-8") == module.page()


def test_a_finding_of_another_defect_is_no_hit() -> None:
    bad = Specimen("x", lambda: None, lambda: None, lambda: None, "", defect="rewards length")  # type: ignore[arg-type, return-value]
    other, own = Finding("not picklable", "it"), Finding("pays for length padding", "it", "long", 1.0, 0.0)
    assert not shows(other) and not names(other, bad.defect) and shows(own)
    missed = Graded("text", bad, Audit("", "", [], 0.0), None)
    assert not missed.right and rates([missed])["hits"].value == 0
