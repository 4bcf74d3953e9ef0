# SPDX-License-Identifier: Apache-2.0
"""Faults in what takes longer than a call: the command line, a training step, an evaluation, a run that is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.cli import main
from guerdon.credit import group_relative
from guerdon.errors import RewardFailure
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.protocols import Context, Sampling
from guerdon.rewards import Reward, reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores, Status
from guerdon.training.evaluation import Evaluation
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts
from tests.faults.cells import Cell
from tests.faults.data import faulty
from tests.faults.rows import BOUNDS, FINE, HANG, TEXTS, budget, plain
from tests.training.table import Table

DATA = Path(__file__).parent / "data"
PROMPTS = ["p", "q"]


# ---- guerdon score


def command(cell: Cell, tmp_path: Path, capsys: Any) -> str:
    name = {"function": "faulty.py:missing", "function, pool": "faulty.py:unit", "batched, pool": "wrapped.py:batched"}[cell.kind]

    def lines(fault: str) -> list[dict]:
        data, out = tmp_path / f"{fault}.jsonl".replace("/", ""), tmp_path / f"{fault}-scores.jsonl".replace("/", "")
        data.write_text("".join(json.dumps({"completion": t, "fault": fault}) + "\n" for t in TEXTS))
        seconds = HANG if cell.fault in ("hang", "sleep") else FINE
        code = main(["score", "--reward", f"{DATA / name}", "--data", str(data), "--budget", str(seconds), "--out", str(out)])
        if code:
            return [{"exit": code}]
        return [json.loads(line) for line in out.read_text().splitlines()]

    found = lines(cell.fault)
    said = capsys.readouterr()
    if "exit" in found[0]:
        assert "no_such_field" in said.err
        return f"exit {found[0]['exit']}"
    fine = lines("fine")
    status = found[2]["total"]["status"]
    assert found[2]["total"]["value"] is None and found[2][name.partition(":")[2].replace("batched", "batch")]["reason"]
    if all(row["total"]["status"] == "error" for row in found):
        return "error of the call"
    assert [r["total"] for i, r in enumerate(found) if i != 2] == [r["total"] for i, r in enumerate(fine) if i != 2]
    assert f"1 x {status}" in said.out, "the table says how many, and why"
    return status


# ---- runs of the letter policy


def letters(cell: Cell) -> Reward:
    return reward(bounds=BOUNDS, budget=budget(cell))(faulty.letters)


def built(cell: Cell) -> Reward:
    f = letters(cell)
    return {"watched": plain + f.watch(), "otherwise": f.otherwise(plain)}.get(cell.kind, f)


def recipe(r: Reward, fault: str, steps: int = 1, **settings: Any) -> Recipe:
    contexts = [Context(p, p, {"fault": fault}) for p in PROMPTS]
    source = Prompts(contexts, 2, 12, Sampling(4))
    stage = Stage(
        "train",
        steps,
        source,
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=r,
        credit=group_relative,
        lr=1.0,
        max_failed=settings.pop("max_failed", 1.0),
    )
    return Recipe("faults", lambda: Table(PROMPTS), [stage], **{"save_rollouts_every": 1, "checkpoint_every": 1, **settings})


def step(r: Reward, fault: str, directory: Path, **settings: Any) -> tuple[Scores, Rollouts, dict, dict]:
    """Scores, rows, metrics and the policy's table after one step."""
    train(recipe(r, fault, **settings), directory, [Jsonl()])
    line = json.loads((directory / "metrics.jsonl").read_text().splitlines()[0])
    file = "step-000001.parquet"
    table = json.loads((directory / "policy" / "table.json").read_text())
    return Scores.load(directory / "scores" / file), Rollouts.load(directory / "rollouts" / file), line, table


def training(cell: Cell, tmp_path: Path) -> str:
    limit = 0.1 if "many fail" in cell.place else 1.0
    if cell.outcome == "RewardFailure":
        with pytest.raises(
            RewardFailure, match=r"reward term `letters`: at most 10.0% of its units may time out or raise, \d+ of 24"
        ):
            step(built(cell), cell.fault, tmp_path / "run", max_failed=limit)
        return "RewardFailure"
    scores, rows, line, table = step(built(cell), cell.fault, tmp_path / "run", max_failed=limit)
    bad = torch.tensor([t.startswith(("b", "c")) for t in rows.values_at("completion", "episode")])
    assert 0.1 < bad.double().mean() < 1, "there is something to lose, and something to keep"
    assert torch.tensor(table["logits"]).isfinite().all()
    if cell.kind in ("watched", "otherwise"):
        *_, same = step(plain, "fine", tmp_path / "plain")
        assert table == same, "the policy is that of a run without the part"
        return cell.outcome
    fine, *_ = step(letters(cell), "fine", tmp_path / "fine")
    status = {Status(s) for s in scores.total.status[bad][:, 0].tolist()}
    assert torch.equal(scores.total.values[~bad], fine.total.values[~bad]) and len(status) == 1
    assert scores.total.values[bad].isnan().all() and all(scores.total.reasons[n, 0] for n in bad.nonzero()[:, 0].tolist())
    (only,) = status
    assert line[f"status/letters/{only.name.lower()}"] == pytest.approx(bad.double().mean().item())
    taken = rows.mask.sum(1).double()
    assert line["dropped"] >= (taken[bad].sum() / taken.sum()).item() - 1e-9
    assert line["reward/total"] == pytest.approx(fine.total.values[~bad].mean().item())
    return only.name.lower()


def evaluation(cell: Cell) -> str:
    def measured(fault: str, r: Reward) -> dict[str, float]:
        contexts = [Context(p, p, {"fault": fault}) for p in PROMPTS]
        return Evaluation(contexts, r, 1, samples=12, sampling=Sampling(4), greedy=False).measure(Table(PROMPTS), 0)

    found = measured(cell.fault, letters(cell))
    bad = reward(lambda completion: completion.startswith(("b", "c")), name="bad")
    share = measured("fine", bad)["eval/success"]
    good = reward(lambda completion: None if completion.startswith(("b", "c")) else float(len(completion)), name="good")
    assert found["eval/not_ok"] == pytest.approx(share) and 0 < share < 1
    assert found["eval/success"] == measured("fine", good)["eval/success"], "the mean is over the others"
    return "not_ok"


class Interrupt:
    """Ends the run when it tells of its second step."""

    def start(self, config: Any, directory: Path, step: int) -> None: ...

    def metrics(self, step: int, metrics: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def finish(self, result: Any) -> None: ...


def resume(cell: Cell, tmp_path: Path) -> str:
    def lines(directory: Path) -> list[dict]:
        found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        clocks = ("time/", "seconds", "tokens_per_second")
        return [{k: v for k, v in line.items() if not k.startswith(clocks)} for line in found]

    train(recipe(built(cell), cell.fault, steps=2), tmp_path / "whole", [Jsonl()])
    with pytest.raises(KeyboardInterrupt):
        train(recipe(built(cell), cell.fault, steps=2), tmp_path / "cut", [Jsonl(), Interrupt()])
    train(recipe(built(cell), cell.fault, steps=2), tmp_path / "cut", [Jsonl()])
    whole, cut = lines(tmp_path / "whole"), lines(tmp_path / "cut")
    assert whole == cut and len(whole) == 2
    assert any(v for line in whole for k, v in line.items() if k.startswith("status/")), "the fault was there"
    return "the same run"
