# SPDX-License-Identifier: Apache-2.0
"""What is asked of every system file, as functions that return complaints: form, contract, golden, reduction, claim.

A system's ``exempt`` names a check of the contract, or ``length``, that does not apply to it, with the reason.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import doctest
import importlib
import inspect
import io
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon import systems
from guerdon.systems.results import fingerprint, stored
from guerdon.systems.searching import refuse_unsearched
from guerdon.systems.system import Comparison, Example, Reduction, System

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LINES = 300
"""More, and a file is no longer read at one sitting: parts belong into the library, tasks into ``tasks`` or ``worlds``."""

EXTRAS = tuple(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"])

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}

# ---- form


def form(slug_or_file: str) -> list[str]:
    """Docstring with idea, equation, provenance and departures; a well-formed SYSTEM; documented public names; a doctest each."""
    path, system = systems.path_of(slug_or_file), systems.system_of(slug_or_file)
    text = path.read_text(encoding="utf-8")
    doc = inspect.getdoc(systems.module_of(slug_or_file)) or ""
    found = [*_docstring(doc, system), *_facts(system), *_public_names(slug_or_file), *_examples(system)]
    if not text.startswith("# SPDX-License-Identifier: Apache-2.0\n"):
        found.append("no SPDX line at the top")
    if text.count("\n") > LINES and "length" not in system.exempt:
        found.append(f"{text.count(chr(10))} lines; more than {LINES} need a reason, exempt={{'length': ...}}")
    if slug_or_file in systems.slugs():
        family = importlib.import_module(f"guerdon.systems.{systems.family_of(slug_or_file)}")
        found += [] if family.__doc__ else [f"the folder {systems.family_of(slug_or_file)} does not say what its role is"]
    return found


def _docstring(doc: str, system: System) -> Iterator[str]:
    first, *rest = doc.split("\n\n")
    if system.title.lower() not in first.lower():
        yield f"the docstring's first line should have the title, {system.title!r}, got {first[:80]!r}"
    if not rest or len(rest[0].split()) < 15:
        yield "no idea: a paragraph after the title"
    if not re.search(r"^ {4}.*[=<>≤≥←]", doc, re.MULTILINE):
        yield "no equation: an indented line with a relation"
    if system.arxiv and not re.fullmatch(r"\d{4}\.\d{4,5}", system.arxiv):
        yield f"arxiv should look like 2501.12345, got {system.arxiv!r}"
    if not re.fullmatch(r"\D+ (19|20)\d\d", system.paper):
        yield f"paper should be 'Lastname Year', got {system.paper!r}"
    if system.arxiv and f"arXiv:{system.arxiv}" not in doc:
        yield f"the docstring does not name arXiv:{system.arxiv}"
    if not all(word in doc for word in (system.paper.split()[0], system.paper.split()[-1])):
        yield f"the docstring does not name {system.paper}"
    if not re.search(r"^Departures:\s*(none known|1\. )", doc, re.MULTILINE | re.IGNORECASE):
        yield "no `Departures:` with a numbered list or 'none known'"


def _facts(system: System) -> Iterator[str]:
    for name in ("title", "roles", "claims", "built_from", "follows", "examples"):
        if not getattr(system, name) and name not in system.exempt:
            yield f"`{name}` is empty"
    if unknown := [e for e in system.extras if e not in EXTRAS]:
        yield f"`extras` should be among {', '.join(EXTRAS)}, got {', '.join(unknown)}"
    for name, reason in system.exempt.items():
        if len(reason.split()) < 4:
            yield f"exempt[{name!r}] gives no reason"
    for claim in system.claims:
        if len(claim.statement.split()) < 5:
            yield f"a claim states nothing: {claim.statement!r}"
        if isinstance(claim, Comparison) and not claim.budget:
            yield "a comparison has no budget"


def _public_names(slug_or_file: str) -> Iterator[str]:
    for node in ast.parse(systems.path_of(slug_or_file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"`{node.name}` has no docstring"


def _examples(system: System) -> Iterator[str]:
    for example in system.examples:
        if ">>>" not in (example.function.__doc__ or ""):
            yield f"`{example.function.__name__}` is an example without a doctest"


# ---- golden


def golden(system: System) -> list[str]:
    """Doctests that would also pass for a function that returns zeros, or what it was given."""
    found = []
    for example in system.examples:
        for name, stand_in in STAND_INS.items():
            if not _doctest_fails(example.function, stand_in):
                found.append(f"the doctest of `{example.function.__name__}` passes for a function that returns {name}")
    return found


def _zeros(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a, **k: _mapped(lambda t: torch.zeros_like(t), f(*a, **k))


def _given(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a, **k: next((x for x in [*a, *k.values()] if isinstance(x, Tensor)), None)


STAND_INS = {"zeros": _zeros, "its input": _given}


def _doctest_fails(function: Callable[..., Any], stand_in: Callable[..., Any]) -> bool:
    module = sys.modules[function.__module__]
    names = {**vars(module), function.__name__: stand_in(function)}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    for test in doctest.DocTestFinder(recurse=False).find(function, function.__name__, module, globs=names):
        with contextlib.redirect_stdout(io.StringIO()):
            runner.run(test)
    return runner.failures > 0


# ---- reduction


def reduction(system: System) -> list[str]:
    """Special cases that are not the parent to 1e-6, or that compare nothing with nothing."""
    return [complaint for r in system.reductions for complaint in _reduction(r)]


def _reduction(r: Reduction) -> Iterator[str]:
    given = r.values()
    this, parent = (x.double() for x in given)
    if this.shape != parent.shape:
        yield f"{r.statement}: shapes {list(this.shape)} and {list(parent.shape)}"
    elif not torch.allclose(this, parent, rtol=1e-6, atol=1e-9):
        yield f"{r.statement}: differs by {(this - parent).abs().max().item():.3g}"
    if given[0] is given[1] or not parent.isfinite().all() or not parent.any():
        yield f"{r.statement}: shown on zeros, on what is not finite, or on the same tensor"


# ---- contract


def contract(system: System) -> list[str]:
    found = []
    for example in system.examples:
        for name, check in CONTRACT.items():
            if name not in system.exempt:
                found += [f"{name}: `{example.function.__name__}` {c}" for c in check(example)]
    return found


def _dtype(example: Example) -> Iterator[str]:
    for dtype in TOLERANCE:
        inputs = example.inputs(dtype)
        if wrong := [k for k, x in _floating(inputs) if x.dtype != dtype]:
            yield f"has example inputs that are not {dtype}: {', '.join(wrong)}"
        for _, out in _floating({"": example.function(**inputs)}):
            if out.dtype != dtype:
                yield f"makes {out.dtype} of {dtype}"


def _inputs(example: Example) -> Iterator[str]:
    inputs = example.inputs(torch.float64)
    before = copy.deepcopy(inputs)
    example.function(**inputs)
    changed = [k for k in inputs if not _same(inputs[k], before[k], 0.0)]
    if changed:
        yield f"writes to {', '.join(changed)}"


def _repeats(example: Example) -> Iterator[str]:
    first, second = (example.function(**example.inputs(torch.float64)) for _ in range(2))
    if not _same(first, second, 0.0):
        yield "gives something else when called again"


def _rows(example: Example) -> Iterator[str]:
    inputs = example.inputs(torch.float64)
    if not example.rows:
        return
    count = len(inputs[example.rows[0]])
    if count < 2:
        yield f"has an example of {count} row, which can't be permuted"
        return
    order = torch.arange(count).roll(1)
    permuted = {k: _permuted(v, order) if k in example.rows else v for k, v in inputs.items()}
    expected = _mapped(lambda t: t[order] if t.dim() and len(t) == count else t, example.function(**inputs))
    if not _same(example.function(**permuted), expected, 1e-9):
        yield "gives something else when its rows are permuted"


def _padding(example: Example) -> Iterator[str]:
    if not example.padded:
        return
    inputs = example.inputs(torch.float64)
    mask = inputs.get("mask")
    if not isinstance(mask, Tensor) or mask.all():
        yield "has no `mask` with a False among its example inputs, so that nothing is padded"
        return
    expected = example.function(**inputs)
    for junk in (float("nan"), 1e6):
        filled = {k: _filled(v, mask, junk) if k in example.padded else v for k, v in inputs.items()}
        if not _same(example.function(**filled), expected, 1e-9):
            yield f"gives something else where masked places of {', '.join(example.padded)} hold {junk}"
            return


def _extremes(example: Example) -> Iterator[str]:
    """Values and gradients stay finite, where they are, for large inputs, equal inputs, and probabilities of 0 and 1."""
    for dtype in TOLERANCE:
        usual = [t.isfinite() for _, t in _floating({"": example.function(**example.inputs(dtype))})]
        for name, extreme in EXTREMES.items():
            inputs = {
                k: _mapped(lambda t, e=extreme: e(t) if t.is_floating_point() else t, v) for k, v in example.inputs(dtype).items()
            }
            leaves = [t.requires_grad_() for _, t in _floating(inputs)]
            outputs = [t for _, t in _floating({"": example.function(**_mapped(Tensor.clone, inputs))})]
            if any(not o[u].isfinite().all() for o, u in zip(outputs, usual, strict=True) if o.shape == u.shape):
                yield f"is not finite for {name} in {dtype}"
            total = sum(o[o.isfinite()].sum() for o in outputs if o.requires_grad)
            if isinstance(total, Tensor):
                gradients = torch.autograd.grad(total, leaves, allow_unused=True)
                if any(g is not None and not g.isfinite().all() for g in gradients):
                    yield f"has a gradient that is not finite for {name} in {dtype}"


def _large(t: Tensor) -> Tensor:
    """Probabilities become 0 and 1, other numbers 30 times as large."""
    fraction = bool(((t >= 0) & (t <= 1)).all())
    return t.round() if fraction else 30 * t


def _equal(t: Tensor) -> Tensor:
    return torch.full_like(t, t.nanmean().item() if t.numel() else 0.0)


EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {"large inputs": _large, "equal inputs": _equal}
CONTRACT: dict[str, Callable[[Example], Iterator[str]]] = {
    "dtype": _dtype,
    "inputs": _inputs,
    "repeats": _repeats,
    "rows": _rows,
    "padding": _padding,
    "extremes": _extremes,
}

# ---- claim


def claim(slug_or_file: str) -> list[str]:
    """A stored result that belongs to the claims as they are, after a search whose best was chosen, at an honest cost."""
    system, found = systems.system_of(slug_or_file), stored(slug_or_file)
    results = found.get("claims", [])
    complaints = []
    if [c["fingerprint"] for c in results] != [fingerprint(c) for c in system.claims]:
        complaints.append(f"its claims were not verified as they are: `guerdon systems verify {slug_or_file}`")
    for number, (c, result) in enumerate(zip(system.claims, results, strict=False)):
        if isinstance(c, Comparison):
            refuse_unsearched(slug_or_file, number)
            complaints += _costs(c, result)
        if result["verdict"] != "held" and not c.tried:
            complaints.append(f"claim {number + 1} is {result['verdict']}, and `tried` does not say what was tried")
    return complaints


MOST_CORE_SECONDS = 60.0


def _costs(c: Comparison, result: Mapping[str, Any]) -> Iterator[str]:
    for arm, told in result["arms"].items():
        if told["core_seconds"] > MOST_CORE_SECONDS:
            yield f"a training of {arm} took {told['core_seconds']:.0f} core-seconds, more than {MOST_CORE_SECONDS:.0f}"
    if min(result["seeds"]) < c.first_seed:
        yield "its verdict stands on seeds for development"


# ---- tensors in whatever holds them


def _mapped(f: Callable[[Tensor], Tensor], x: Any) -> Any:
    if isinstance(x, Tensor):
        return f(x)
    if isinstance(x, Mapping):
        return {k: _mapped(f, v) for k, v in x.items()}
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return dataclasses.replace(x, **{d.name: _mapped(f, getattr(x, d.name)) for d in dataclasses.fields(x) if d.init})
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(_mapped(f, v) for v in x))
    return type(x)(_mapped(f, v) for v in x) if isinstance(x, list | tuple) else x


def _leaves(x: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        x = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
    if isinstance(x, Mapping):
        for k, v in x.items():
            yield from _leaves(v, f"{name}.{k}".strip("."))
    elif isinstance(x, list | tuple):
        for i, v in enumerate(x):
            yield from _leaves(v, f"{name}.{i}".strip("."))
    else:
        yield name, x


def _floating(x: Any) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in _leaves(x) if isinstance(v, Tensor) and v.is_floating_point()]


def _same(a: Any, b: Any, tolerance: float) -> bool:
    one, other = list(_leaves(a)), list(_leaves(b))
    return len(one) == len(other) and all(_equal_leaves(x, y, tolerance) for (_, x), (_, y) in zip(one, other, strict=True))


def _equal_leaves(x: Any, y: Any, tolerance: float) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x.shape == y.shape and torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(x, float) and isinstance(y, float):
        return abs(x - y) <= tolerance * max(1.0, abs(y)) or (x != x and y != y)
    return x is y or callable(x) or x == y


def _permuted(x: Any, order: Tensor) -> Any:
    return x[order] if isinstance(x, Tensor) else [x[i] for i in order.tolist()]


def _filled(x: Tensor, mask: Tensor, junk: float) -> Tensor:
    """``x`` [N, T, ...] with ``junk`` (0 where it holds no floats) in the masked places."""
    y = x.clone()
    y[~mask] = junk if x.is_floating_point() else 0
    return y
