# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from guerdon import cli
from guerdon.cli import main

ROWS = [
    {"prompt": "2+2=", "chosen": "4", "rejected": ["5", "four"], "answer": "4", "subset": "sums"},
    {"prompt": "2+3=", "chosen": "so 5", "rejected": ["5 and 6", "7"], "answer": "5", "subset": "sums"},
    {"prompt": "1+1=", "chosen": "2", "rejected": ["3", "2"], "answer": "2", "subset": "equal"},
    {"prompt": "odd", "chosen": "2", "rejected": ["3"], "answer": "two", "subset": "equal"},
]


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "COMMANDS", tuple(dict.fromkeys([*cli.COMMANDS, "evaluate"])))


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return str(path)


def test_tables_and_files(data: str, tmp_path: Path, capsys) -> None:
    outs = [str(tmp_path / "e.json"), str(tmp_path / "e.html")]
    assert main(["evaluate", "numeric", "--data", data, "--replicates", "20", "--out", outs[0], "--out", outs[1]]) == 0
    printed = capsys.readouterr().out
    rows = {line.strip().split("  ")[0]: line for line in printed.splitlines()}
    assert "91.7 %" in rows["accuracy, pairs"] and "83.3 %" in rows["best of k"] and "62.5 %" in printed
    assert "25.0 %" in rows["lines not judged"] and "4 lines, 11 answers" in printed and "2 x error: " in printed
    found = json.loads(Path(outs[0]).read_text())
    assert found["accuracy"]["judged"]["value"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert found["accuracy"]["equal_as_wrong"]["judged"]["value"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["best_of_k"]["judged"]["value"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["best_of_k"]["unjudged_wrong"]["value"] == pytest.approx((1 + 1 + 0.5) / 4)
    assert found["statuses"] == {"ok": 9, "abstain": 0, "timeout": 0, "error": 2}
    assert found["throughput"]["answers_per_second"] > 0
    assert "<title>numeric</title>" in Path(outs[1]).read_text()


def test_nothing_is_written_over_and_mistakes_are_one_message(data: str, tmp_path: Path, capsys) -> None:
    there = tmp_path / "there.json"
    there.write_text("mine")
    for arguments in (["--out", str(there)], ["--out", str(tmp_path / "e.txt")], ["--replicates", "0"]):
        assert main(["evaluate", "numeric", "--data", data, *arguments]) == 2
    said = capsys.readouterr().err
    assert there.read_text() == "mine" and "exists already" in said and ".json or .html" in said and "--replicates" in said
    assert main(["evaluate", "nomeric", "--data", data]) == 2 and "did you mean numeric" in capsys.readouterr().err
