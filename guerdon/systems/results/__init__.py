# SPDX-License-Identifier: Apache-2.0
"""Stored verdicts: SLUG.json beside this file, one for each system whose claims have been verified. Shipped with the package."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import guerdon.systems as systems
from guerdon.errors import CheckpointError
from guerdon.systems.system import Claim
from guerdon.training.run import write_json

SCHEMA = 1
PLACE = Path(__file__).parent
TOLD = frozenset(["title", "paper", "arxiv", "roles", "extras", "built_from", "follows", "exempt", "examples", "reductions"])
TOLD |= frozenset(["statement", "differences", "tried", "budget", "grid", "chosen"])
"""Arguments of a system and its claims that no training depends on; what a claim depends on of them is in its fingerprint."""


def stored(slug_or_file: str) -> dict[str, Any]:
    """What is stored of a system: ``claims``, ``search`` and how they came about; {} if nothing is."""
    path = path_of(slug_or_file)
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: expected schema {SCHEMA}, got {found.get('schema')}. Usual cause: another version's file."
        )
    return found


def store(slug_or_file: str, part: Mapping[str, Any]) -> Path:
    """Write ``part`` over what is stored, key by key."""
    path = path_of(slug_or_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**stored(slug_or_file), "schema": SCHEMA, **part})
    path.write_text(_with_short_lists(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def path_of(slug_or_file: str) -> Path:
    """Beside this file in a source checkout; with the runs where guerdon is installed, and for a system of one's own."""
    slug = systems.slug_of(slug_or_file)
    if slug == slug_or_file and (PLACE.parents[2] / "pyproject.toml").exists():
        return PLACE / f"{slug}.json"
    mine = Path("runs") / "systems" / slug / "verdict.json"
    return mine if slug != slug_or_file or mine.exists() or not (PLACE / f"{slug}.json").exists() else PLACE / f"{slug}.json"


def fingerprint(claim: Claim) -> str:
    """Eight letters that change when what is claimed does: statement, arms, metric, grid, chosen values, seeds, test.

    Functions count by name; ``code_of`` sees their bodies.
    """
    told = {f.name: _plain(getattr(claim, f.name)) for f in fields(claim) if f.name not in ("differences", "tried")}
    return _short_hash(json.dumps([type(claim).__name__, told], sort_keys=True))


def code_of(slug_or_file: str) -> str:
    """Eight letters that change when what a system's file runs does; layout, comments, docstrings and ``TOLD`` don't count."""
    tree = ast.parse(systems.path_of(slug_or_file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("System", "Comparison", "Bound", "Exact"):
            node.keywords = [k for k in node.keywords if k.arg not in TOLD]
    return _short_hash(ast.dump(tree))


def _with_short_lists(text: str) -> str:
    """JSON with lists of numbers and words on a line each, and numbers to six digits.

    >>> _with_short_lists('{\\n "a": [\\n  0.12345678,\\n  2\\n ]\\n}')
    '{\\n "a": [0.123457, 2]\\n}'
    """
    text = re.sub(r"-?\d+\.\d+(e[-+]?\d+)?", lambda m: f"{float(m[0]):.6g}", text)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text)


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    if isinstance(x, (str, int, float, bool)) or x is None:
        return x
    if callable(x):
        return "function"
    return {f.name: _plain(getattr(x, f.name)) for f in fields(x)}


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
