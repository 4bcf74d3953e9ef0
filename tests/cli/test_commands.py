# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from pathlib import Path

import pytest

from guerdon.cli import main

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "own_recipe.py")

STUDY = """
from guerdon.errors import InputError
from guerdon.objectives import negative_log_likelihood, token_mean
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations
from guerdon.training.study import Study

def _policy():
    raise InputError("the disk is on strike")

def _arm(seed, start):
    terms = [Term(1.0, negative_log_likelihood, token_mean)]
    return Recipe("a", _policy, [Stage("learn", 1, Demonstrations([("a", "b")], 1), terms)], seed=seed)

def recipe(seed: int = 0):
    return Study("broken", {"a": _arm}, [seed])
"""


def test_help_does_not_import_torch() -> None:
    code = "import sys; from guerdon.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("False\n")
    assert all(command in said for command in ("run", "train", "score", "show", "report"))


def test_the_console_entry_is_installed() -> None:
    found = subprocess.run([Path(sys.executable).with_name("guerdon"), "show", "exact + nothing"], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.splitlines()[-1].index("^") == found.stderr.splitlines()[-2].index("nothing")


def test_an_own_recipe_runs_reports_and_is_shown(tmp_path: Path, capsys) -> None:
    out = tmp_path / "own"
    assert main(["run", EXAMPLE, "warm=3", "--out", str(out), "steps=2", "--seed", "5"]) == 0
    assert json.loads((out / "config.json").read_text())["arguments"] == {"warm": 3, "steps": 2, "seed": 5}
    assert json.loads((out / "result.json").read_text())["samples"] == 2 * 16 * 8
    printed = capsys.readouterr().out
    assert "held-out success" in printed
    assert str(out / "report.html") in printed
    page = tmp_path / "both.html"
    assert main(["report", str(out), str(out), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text().startswith("<!doctype html>")
    assert main(["report", str(tmp_path / "no")]) == 2
    assert main(["report", str(out), str(out), str(out)]) == 2

    assert main(["show", EXAMPLE]) == 0
    printed = capsys.readouterr().out
    arguments = {line.split()[0]: line for line in printed.splitlines() if line.startswith("  ")}
    assert arguments["warm"].split(maxsplit=2)[1:] == ["200", "updates that imitate a teacher who is wrong half the time"]
    assert len({arguments[n].index(w) for n, w in (("seed", "of the"), ("warm", "updates"), ("lr", "learning"))}) == 1
    assert "reward of stage train" in printed
    assert "0.1 * two_digits" in printed


def test_show(capsys) -> None:
    assert main(["show"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in ("quickstart", "train", "numeric", "length_penalty"))
    assert main(["show", "train"]) == 0
    assert "  held_out " in capsys.readouterr().out
    assert main(["show", "quickstart"]) == 0
    assert "reward of shuffled" in capsys.readouterr().out
    assert main(["show", "numeric + 0.2*length"]) == 0
    assert "0.2 * length" in capsys.readouterr().out


WRONG = {
    "unknown recipe": (["run", "quikstart"], ["quikstart", "Did you mean 'quickstart'"]),
    "shown by a misspelt name": (["show", "quikstart"], ["Did you mean 'quickstart'"]),
    "no file": (["run", "nowhere.py"], ["nowhere.py"]),
    "no function": (["run", "empty.py"], ["empty.py", "`recipe`", "none"]),
    "two functions": (["run", "two.py"], ["two.py", "one, other"]),
    "no recipe": (["run", "number.py"], ["number.py", "`number`", "int"]),
    "missing argument": (["run", "train", "model=x"], ["data=...", "reward=..."]),
    "no config": (["run", "."], ["config.json"]),
    "another config": (["run", "package.json"], ["config.json"]),
    "unknown setting": (["run", "quickstart", "--out", "out", "sedes=1"], ["sedes", "Did you mean 'seeds'"]),
    "not a setting": (["run", "quickstart", "seeds"], ["key=value", "'seeds'"]),
    "a study's worker": (["run", "study.py", "--out", "study"], ["a, seed 0: the disk is on strike"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_message(name: str, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "two.py").write_text("def one(): ...\ndef other(): ...\n")
    (tmp_path / "number.py").write_text("def number():\n    return 3\n")
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "package.json").write_text("{}")
    before = sorted(p.name for p in tmp_path.iterdir())
    command, expected = WRONG[name]
    assert main(command) == 2
    err = capfd.readouterr().err
    assert err.startswith("guerdon: ")
    assert "Traceback" not in err
    assert all(e in err for e in expected), err
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in ("study", "__pycache__")) == before


def test_options_that_do_not_exist_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["score", "--reward", "exact", "--data", "x", "steps=3"])
    assert stopped.value.code == 2
    assert "unrecognised: steps=3" in capsys.readouterr().err


def test_values_of_text_arguments_are_left_as_they_are() -> None:
    from guerdon.cli.run import settings_of

    found = settings_of("train", ["model=1e5", "reward='a b.py:f'", "lr=1e-3", "seed=4", "stop=END", "held_out=8"])
    assert found == {"model": "1e5", "reward": "'a b.py:f'", "lr": 1e-3, "seed": 4, "stop": "END", "held_out": 8}


def test_an_arm_of_a_study_is_not_run_by_itself(tmp_path: Path, capsys) -> None:
    (tmp_path / "dense-s0").mkdir()
    (tmp_path / "dense-s0" / "config.json").write_text(json.dumps({"recipe": "quickstart", "arguments": {}, "arm": "dense"}))
    assert main(["run", str(tmp_path / "dense-s0")]) == 2
    assert "arm `dense`" in capsys.readouterr().err
