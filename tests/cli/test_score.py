# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
import torch

from guerdon.cli import main
from guerdon.rewards.parse import parse
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores, Status

POISON = str(Path(__file__).parent / "data" / "poison.py")
TRAPS = {"hang": "timeout", "exit": "error", "raise": "error", "inf": "error", "nan": "error", "text": "error", "none": "abstain"}


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_weighed_sum_in_figures(tmp_path: Path, capsys) -> None:
    rows = [{"prompt": "1+1=", "completion": "<a>2</a>", "answer": "2"}, {"prompt": "2+2=", "completion": "5", "answer": "4"}]
    out = tmp_path / "scores.jsonl"
    reward = 'numeric + 0.2*format("<a>.*</a>") - 0.01*length'
    assert (
        main(["score", "--reward", reward, "--data", write(tmp_path / "d.jsonl", rows), "--budget", "1", "--out", str(out)]) == 0
    )
    first, second = lines(out)
    assert first["total"]["value"] == pytest.approx(1 + 0.2 - 0.08)
    assert second["total"]["value"] == pytest.approx(-0.01)
    assert second["numeric"] == {"value": 0.0, "status": "ok"}
    printed = capsys.readouterr().out
    assert "2 completions scored" in printed
    row = next(line.split() for line in printed.splitlines() if line.startswith("format"))
    assert row == ["format", "episode", "0.2", "0.5", "0", "1", "2", "0", "0", "0"]


def test_poisoned_completions_have_a_status_and_a_reason_and_are_no_zeros(tmp_path: Path, capsys) -> None:
    texts = [*(["fine"] * 40), *TRAPS, *(["fine"] * 40)]
    data = write(tmp_path / "d.jsonl", [{"completion": t} for t in texts])
    out = tmp_path / "scores.jsonl"
    assert main(["score", "--reward", f"{POISON}:poisoned", "--data", data, "--budget", "0.5", "--out", str(out)]) == 0
    found = lines(out)
    for text, row in zip(texts, found, strict=True):
        assert row["total"]["status"] == TRAPS.get(text, "ok"), text
        assert row["total"]["value"] == (4.0 if text == "fine" else None)
        assert bool(row["poisoned"].get("reason")) is (text != "fine")
    printed = capsys.readouterr().out
    assert "1 x timeout: took longer than its budget of 0.5 s" in printed
    assert "worker exited with status 3" in printed
    assert "no such thing" in printed


def test_a_batched_function_of_the_wrong_length_is_an_error_of_its_items(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", [{"completion": "x"}] * 5)
    out = tmp_path / "scores.jsonl"
    assert main(["score", "--reward", f"{POISON}:short_batch", "--data", data, "--budget", "5", "--out", str(out)]) == 0
    for row in lines(out):
        assert row["total"]["status"] == "error"
        assert row["total"]["value"] is None
        assert "4 values for 5 items" in row["total"]["reason"]


def test_many_different_reasons_are_cut_short_but_counted(tmp_path: Path, capsys) -> None:
    data = write(tmp_path / "d.jsonl", [{"completion": "1", "answer": f"word {i}"} for i in range(12)])
    assert main(["score", "--reward", "numeric", "--data", data]) == 0
    assert "numeric: 4 more for 4 other reasons" in capsys.readouterr().out


def test_a_finer_term_is_scored_by_characters_and_written_as_a_list(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", [{"completion": "a=1\nb", "answer": "b"}])
    out = tmp_path / "scores.jsonl"
    reward = f'exact + steps("{POISON}:good_step")'
    assert main(["score", "--reward", reward, "--data", data, "--out", str(out)]) == 0
    (row,) = lines(out)
    assert row["steps"] == {"value": [1.0, 0.0], "status": ["ok", "ok"]}
    assert row["exact"] == {"value": 0.0, "status": "ok"}


def test_explain_prints_one_row(tmp_path: Path, capsys) -> None:
    rows = [{"prompt": "a", "completion": "2", "answer": "2"}, {"prompt": "a", "completion": "3", "answer": "2"}]
    data = write(tmp_path / "d.jsonl", rows)
    assert main(["score", "--reward", "numeric + exact.normalise()", "--data", data, "--explain", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("row 1, task 1, total -0.7071")  # of its group: it needs the other row
    assert main(["score", "--reward", "numeric - 2*length", "--data", data, "--explain", "1"]) == 0
    assert capsys.readouterr().out.startswith("row 1, task 1, total -2")


def test_groups_are_the_rows_of_a_prompt_or_of_a_group(tmp_path: Path) -> None:
    rows = [{"prompt": p, "completion": c, "answer": "1"} for p, c in (("a", "1"), ("b", "0"), ("a", "0"), ("b", "0"))]
    out = tmp_path / "by_prompt.jsonl"
    main(["score", "--reward", "exact.normalise(scale=False)", "--data", write(tmp_path / "d.jsonl", rows), "--out", str(out)])
    assert [r["total"]["value"] for r in lines(out)] == [0.5, 0.0, -0.5, 0.0]
    for row, group in zip(rows, (1, 1, 2, 2), strict=True):
        row["group"] = group
    out = tmp_path / "by_group.jsonl"
    main(["score", "--reward", "exact.normalise(scale=False)", "--data", write(tmp_path / "e.jsonl", rows), "--out", str(out)])
    assert [r["total"]["value"] for r in lines(out)] == [0.5, -0.5, 0.0, 0.0]


def test_parquet_in_and_out(tmp_path: Path) -> None:
    rollouts = Rollouts.from_text(["1+1="] * 2, ["2", "3"], answer=["2", "2"])
    rollouts.save(tmp_path / "rollouts.parquet")
    out = tmp_path / "scores.parquet"
    assert main(["score", "--reward", "numeric", "--data", str(tmp_path / "rollouts.parquet"), "--out", str(out)]) == 0
    assert Scores.load(out).total.values.tolist() == [[1.0], [0.0]]


def test_a_run_is_scored_again_and_compared(tmp_path: Path, capsys) -> None:
    rollouts = Rollouts.from_text(["1+1="] * 3, ["2", "two", "3"], answer=["2", "2", "2"])
    for arm in ("a-s0", "b-s0"):
        for step in (1, 50):
            for kind, what in (("rollouts", rollouts), ("scores", parse("exact").score(rollouts))):
                path = tmp_path / "run" / arm / kind / f"step-{step:06d}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                what.save(path)
    (tmp_path / "run" / "b-s0" / "scores" / "step-000050.parquet").unlink()
    assert main(["score", "--reward", "exact + 0.5*format('.*o')", "--data", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["run", "step", "rows", "then", "now", "change", "rows", "changed", "not", "ok", "now"]
    assert printed[2].split() == ["a-s0", "1", "3", "0.3333", "0.5000", "+0.1667", "1", "0"]
    assert printed[3].split() == ["50", "3", "0.3333", "0.5000", "+0.1667", "1", "0"]
    assert printed[5].split() == ["50", "3", "-", "0.5000", "-", "-", "0"]
    assert len({len(line.rstrip()) for line in printed[1:]}) == 1  # aligned at the right


def test_a_row_that_fails_now_is_changed_and_no_zero(tmp_path: Path, capsys) -> None:
    rollouts = Rollouts.from_text(["1+1="] * 2, ["2", "none"], answer=["2", "2"])
    for kind, what in (("rollouts", rollouts), ("scores", parse("exact").score(rollouts))):
        (tmp_path / "run" / kind).mkdir(parents=True)
        what.save(tmp_path / "run" / kind / "step-000001.parquet")
    assert main(["score", "--reward", f"{POISON}:poisoned", "--data", str(tmp_path / "run"), "--budget", "5"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["run", "1", "2", "0.5000", "1.0000", "+0.5000", "1", "1"]


def test_status_counts_are_yellow_on_a_terminal(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    data = write(tmp_path / "d.jsonl", [{"completion": "1", "answer": "word"}])
    assert main(["score", "--reward", "numeric", "--data", data]) == 0
    assert "\x1b[33m1\x1b[0m" in capsys.readouterr().out


def test_row_totals_of_several_units() -> None:
    from guerdon.cli.score import row_totals
    from guerdon.scores import Component

    nan = float("nan")
    values = torch.tensor([[1.0, 2.0], [1.0, nan], [1.0, nan], [nan, nan]])
    status = torch.tensor([[0, 0], [0, Status.NONE], [0, Status.TIMEOUT], [Status.NONE, Status.NONE]], dtype=torch.int8)
    assert row_totals(Component("x", "line", values, status)).nan_to_num(-9).tolist() == [3.0, 1.0, -9.0, -9.0]


WRONG = {
    "malformed": (["{'a': 1}"], [], ["d.jsonl, line 1", "JSON object"]),
    "blank lines count": (["", '{"prompt": "a"}'], [], ["d.jsonl, line 2", "`completion`"]),
    "missing field": (['{"completion": "1", "answer": "1"}', '{"completion": "1"}'], [], ["d.jsonl, line 2", "`answer`"]),
    "explain": (['{"completion": "1", "answer": "1"}'], ["--explain", "1"], ["row from 0 to 0", "got 1"]),
    "out": (['{"completion": "1", "answer": "1"}'], ["--out", "x.txt"], [".jsonl or .parquet", "x.txt"]),
    "budget": (['{"completion": "1", "answer": "1"}'], ["--budget", "0"], ["budget", "0"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_message(name: str, tmp_path: Path, capsys) -> None:
    content, more, expected = WRONG[name]
    (tmp_path / "d.jsonl").write_text("\n".join(content))
    assert main(["score", "--reward", "numeric", "--data", str(tmp_path / "d.jsonl"), *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("guerdon: ")
    assert all(e in said.err for e in expected), said.err
    assert [p.name for p in tmp_path.iterdir()] == ["d.jsonl"]


def test_nothing_is_written_over(tmp_path: Path, capsys) -> None:
    data = write(tmp_path / "d.jsonl", [{"completion": "1", "answer": "1"}])
    (tmp_path / "there.jsonl").write_text("mine")
    assert main(["score", "--reward", "exact", "--data", data, "--out", str(tmp_path / "there.jsonl")]) == 2
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert main(["score", "--reward", "exact", "--data", data, "--out", str(tmp_path / "no" / "dir.jsonl")]) == 2
    assert "there is no directory" in capsys.readouterr().err


EXPRESSIONS = {
    "unknown": ("numerik", "numerik", "did you mean numeric"),
    "syntax": ("numeric + * exact", "* exact", "cannot be read"),
    "finer condition": (f'numeric.gate(on=steps("{POISON}:good_step"))', "gate", "pool"),
    "no such file": ("nowhere.py:f", "nowhere.py:f", "no file nowhere.py"),
    "no such name": (f"exact + {POISON}:tidi", POISON, "tidy"),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_mistakes_in_an_expression_have_a_caret_under_the_place(name: str, tmp_path: Path, capsys) -> None:
    text, place, expected = EXPRESSIONS[name]
    data = write(tmp_path / "d.jsonl", [{"completion": "1", "answer": "1"}])
    assert main(["score", "--reward", text, "--data", data]) == 2
    err = capsys.readouterr().err
    _, shown, caret = err.rstrip("\n").split("\n")
    assert shown[caret.index("^") :].startswith(place)
    assert expected in err
