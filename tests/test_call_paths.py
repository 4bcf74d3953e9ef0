# SPDX-License-Identifier: Apache-2.0
"""Text, control and generators are trained by the same functions, and the architecture page shows which."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def paths() -> ModuleType:
    spec = importlib.util.spec_from_file_location("call_paths", DOCS / "call_paths.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_a_step_calls(paths: ModuleType) -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert paths.block() in page, "run: python docs/call_paths.py --write"


def test_every_kind_goes_through_the_same_loop_credit_and_objectives(paths: ModuleType) -> None:
    calls = {kind: set(paths.called(make)) for kind, make in paths.KINDS.items()}
    shared = set.intersection(*calls.values())
    assert {
        "training.scoring.score",
        "training.crediting.Crediting.assign",
        "training.update.Update.run",
        "training.update.Update.microbatch",
        "objectives.policy_gradient.clipped_surrogate",
        "policies.gradient_updater.GradientUpdater.accumulate",
    } <= shared
    assert "credit.returns.gae" in calls["text, critic"] & calls["control"]
    assert "credit.groups.group_relative" in calls["text, groups"] & calls["flow"]
    own = {kind: {n for n in names - shared if n.startswith("training.")} for kind, names in calls.items()}
    assert {n for names in own.values() for n in names if "<" not in n and "._" not in n} <= {
        "training.update.Update.of_steps",  # steps dealt out as rows
        "training.binding.Ingredients.steps",
        "training.sources.Prompts.batch",
        "training.sources.picks",
        "training.sources.order",
        "training.binding.Ingredients.at",
        "training.update.Update.gradient",
    } | {n for n in calls["control"] if n.startswith("training.binding.")}
