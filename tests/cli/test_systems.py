# SPDX-License-Identifier: Apache-2.0
"""guerdon systems: what it prints, what it exits with, and what it makes of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guerdon import systems
from guerdon.cli import main
from guerdon.errors import InputError
from guerdon.systems.results import stored

CLIMB = str(Path(__file__).parents[1] / "systems" / "data" / "fast_climb.py")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_list_has_a_line_for_each_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["slug", "title", "family", "roles", "claims", "verdict"]
    assert [line.split()[0] for line in lines] == systems.slugs()
    (adastop,) = (line for line in lines if line.startswith("adastop "))
    assert "AdaStop" in adastop and "7 bound" in adastop


def test_a_file_that_cannot_be_imported_does_not_take_the_list_with_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def system_of(slug: str) -> systems.System:
        raise InputError("no SYSTEM") if slug == "one" else ModuleNotFoundError("no ribs")

    monkeypatch.setattr(systems, "slugs", lambda: ["one", "two"])
    monkeypatch.setattr(systems, "family_of", lambda slug: "evidence")
    monkeypatch.setattr(systems, "system_of", system_of)
    assert main(["systems", "list"]) == 0
    out = capsys.readouterr().out
    assert "not to be imported: no SYSTEM" in out and "not to be imported: no ribs" in out


def test_show_tells_the_idea_the_claims_and_that_nothing_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems", "show", CLIMB]) == 0
    out = capsys.readouterr().out
    for part in (
        "x' = x − gain x",
        "paper       Nobody 2024",
        "A pull of a half climbs higher",
        "fast against slow in eval/height at the end, 20 samples each",
        "with --full also middle",
        "grid lr=[0.1,0.3]; chosen fast: lr=0.3; slow: lr=0.3",
        "not verified",
    ):
        assert part in out, part


def test_run_trains_one_arm_with_hyper_parameters_over_the_chosen_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems", "run", CLIMB, "--arm", "slow", "--seed", "3", "lr=0.2"]) == 0
    out = Path(capsys.readouterr().out.split()[-1])
    assert out.name == "slow-lr=0.2-s3"
    config = json.loads((out / "config.json").read_text())
    assert config["arguments"] == {"claim": 0, "lr": 0.2} and config["arm"] == "slow" and config["seed"] == 3
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 20
    assert main(["systems", "run", CLIMB, "--out", "here"]) == 0  # the better arm, as chosen
    assert json.loads(Path("here/config.json").read_text())["arguments"] == {"claim": 0, "lr": 0.3}


def test_search_and_verify_print_what_they_found_and_exit_with_0_whatever_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    worse = tmp_path / "worse.py"  # the better arm is the worse one: the claim can't hold
    worse.write_text(Path(CLIMB).read_text().replace('better="fast"', 'better="slow"').replace('than="slow"', 'than="fast"'))
    assert main(["systems", "search", str(worse), "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert "chosen={'slow': {'lr': 0.3}, 'fast': {'lr': 0.3}}" in out
    assert [line[0] for line in out.splitlines() if "lr=" in line and "(" in line] == [" ", "*", " ", "*"]
    assert main(["systems", "verify", str(worse)]) == 0
    out = capsys.readouterr().out
    assert "5 seeds each: statistic" in out and "slow is worse" in out
    assert out.splitlines()[-3:] == ["not held", "", "stored  runs/systems/worse/verdict.json"]
    assert stored(str(worse))["command"] == ["guerdon", "systems", "verify", str(worse)]
    assert main(["systems", "show", str(worse)]) == 0
    assert "not held: slow -0.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "adastp"], "Did you mean 'adastop'?"),
        (["run", "adastop"], "expected claim 1 to be a Comparison, which has arms; its claims: Bound, Bound"),
        (["run", CLIMB, "--claim", "4"], "expected claim 4 to be a Comparison"),
        (["run", CLIMB, "--arm", "quick"], "no arm 'quick' in claim 1; there are fast, slow, middle"),
        (["run", CLIMB, "rate=3"], "arm fast of claim 1 has no hyper-parameter rate; it has lr, gain, steps"),
        (["verify", CLIMB], "Run `guerdon systems search"),
        (["search", CLIMB, "--seeds", "1001"], "expected development seeds below 1000"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_page_is_printed_or_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "slugs", lambda: ["adastop"])
    assert main(["systems", "table"]) == 0
    printed = capsys.readouterr().out
    assert main(["systems", "table", "--write", "systems.md"]) == 0
    assert capsys.readouterr().out.split() == ["systems.md", "systems/adastop.svg"]
    assert Path("systems.md").read_text() + "\n" == printed
