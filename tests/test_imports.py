# SPDX-License-Identifier: Apache-2.0
"""Imports point to the ground, and `import guerdon` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUND = ("errors", "levels", "rollouts", "scores", "comparisons", "protocols", "storage", "columns", "concatenation")
FLOORS = (
    GROUND,
    ("credit", "objectives", "sandbox"),  # pure functions, and the sandbox: they import the ground floor only, as any floor may
    ("rewards", "policies", "judges", "serving"),
    ("sampling", "tasks", "worlds"),
    ("training", "learners"),
    ("report", "audit", "integrations"),
    ("systems", "recipes"),
    ("cli", "__main__"),
)
"""From the ground up. A room imports from its own floor and those below; rooms of one floor may know each other, except
the two that hold pure functions."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ALONE = ("credit", "objectives")

HEAVY = (
    "transformers",
    "peft",
    "pyarrow",
    "pandas",
    "sacrebleu",
    "math_verify",
    "rich",
    "jinja2",
    "plotly",
    "sympy",
    "reasoning_gym",
    "starlette",
    "uvicorn",
    "httpx2",
    "pydantic",
)


def imported_rooms(source: str) -> Iterator[tuple[int, str]]:
    """(line, room of guerdon) for every import in a module, inside functions and type-checking blocks too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "guerdon":
            names = [f"guerdon.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom):
            names = ["guerdon.?" if node.level else str(node.module)]
        else:
            continue
        yield from ((node.lineno, name.partition(".")[2].split(".")[0]) for name in names if name.split(".")[0] == "guerdon")


def wrong_imports(room: str, source: str) -> list[str]:
    """What a module of `room` imports that it should not, one line each."""
    wrong = []
    for line, other in imported_rooms(source):
        if other not in FLOOR:
            wrong.append(f"line {line}: `{other or 'guerdon itself'}` is no room; import from the module that defines the name")
        elif FLOOR[other] > FLOOR[room]:
            wrong.append(f"line {line}: `{room}` imports `{other}`, which stands above it")
        elif room in ALONE and other != room and other not in GROUND:
            wrong.append(f"line {line}: `{room}` imports `{other}`, but pure functions import the ground floor only")
    return wrong


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / "guerdon").rglob("*.py") if path != ROOT / "guerdon" / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_to_the_ground(path: Path) -> None:
    room = path.parts[1].removesuffix(".py")
    assert room in FLOOR, f"{path} is in no room: give `{room}` a floor in {Path(__file__).name}"
    assert wrong_imports(room, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("training", "from guerdon.report.html import page"),
        ("training", "import guerdon.audit"),
        ("training", "def f():\n    from guerdon import report"),
        ("credit", "from guerdon.objectives.reduce import token_mean"),
        ("objectives", "from guerdon.rewards import Reward"),
        ("credit", "import guerdon.rewards.node as r"),
        ("rewards", "from guerdon.tasks import Task"),
        ("rollouts", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from guerdon.policies import LanguagePolicy"),
        ("tasks", "from guerdon import Reward"),
        ("tasks", "import guerdon"),
        ("tasks", "from . import jsonl"),
        ("tasks", "from guerdon.nowhere import x"),
    ],
)
def test_a_wrong_import_is_seen(room: str, source: str) -> None:
    assert len(wrong_imports(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        (
            "training",
            "from guerdon.credit import gae\nfrom guerdon.rewards.node import Reward\nfrom guerdon.protocols import Policy",
        ),
        ("credit", "import torch\nfrom guerdon.errors import check_shape\nfrom guerdon.credit.gae import gae"),
        ("rewards", "from guerdon.policies import LanguagePolicy"),
        ("systems", "from guerdon.report import table\nfrom guerdon.training import loop"),
        ("cli", "from guerdon import __version__, systems"),
        ("tasks", "import json\nfrom guerdonish import x"),
    ],
)
def test_a_right_import_passes(room: str, source: str) -> None:
    assert wrong_imports(room, source) == []


def loaded_by(statement: str) -> set[str]:
    """The top-level packages a fresh Python process has after one statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_import_guerdon_is_light() -> None:
    loaded = loaded_by("import guerdon")
    assert "guerdon" in loaded
    assert not loaded & set(HEAVY)


def test_loaded_by_sees_a_heavy_import() -> None:
    assert "jinja2" in loaded_by("def f():\n    import jinja2\nf()")
