# SPDX-License-Identifier: Apache-2.0
"""A system and its result as text."""

from __future__ import annotations

import inspect
import statistics
import textwrap
from collections.abc import Mapping
from typing import Any

from guerdon import systems
from guerdon.errors import InputError
from guerdon.systems.arms import text_of
from guerdon.systems.results import code_of, fingerprint, stored
from guerdon.systems.system import Claim, Comparison, System

WIDTH = 110


def row_of(slug: str) -> tuple[str, ...]:
    """slug, title, family, roles, claims, verdict; a file that can't be imported here says why instead of its verdict."""
    family = systems.family_of(slug)
    try:
        system = systems.system_of(slug)
    except (InputError, ImportError) as e:
        return slug, "?", family, "?", "?", f"not to be imported: {e}"
    return slug, system.title, family, ", ".join(system.roles), claim_kinds(system), verdict_on(slug)


def claim_kinds(system: System) -> str:
    """
    >>> from guerdon.systems.system import Bound, Exact
    >>> claim_kinds(System("", "", "", (), [Exact("", dict, 0.0), Exact("", dict, 0.0), Bound("", float, 0.0, True)], ()))
    '2 exact, bound'
    """
    kinds = [type(c).__name__.lower() for c in system.claims]
    return ", ".join(k if kinds.count(k) == 1 else f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))


def verdict_on(slug: str) -> str:
    """The stored verdict of the first claim with its date, or why there is none."""
    found, claims = stored(slug), systems.system_of(slug).claims
    if not found.get("claims"):
        return "not verified"
    if found["claims"][0]["fingerprint"] != fingerprint(claims[0]):
        return "not verified since the claim changed"
    first, *others = (c["verdict"] for c in found["claims"])
    unlike = f"; {len(o)} of {len(others)} other claims not" if (o := [v for v in others if v != "held"]) else ""
    changed = "" if found["code"] == code_of(slug) else ", code changed since"
    return f"{first}{unlike} ({found['date']}{changed})"


def told(slug_or_file: str) -> str:
    """Everything about one system."""
    system, found = systems.system_of(slug_or_file), stored(slug_or_file)
    parts = [inspect.getdoc(systems.module_of(slug_or_file)) or "", "\n".join(_facts(slug_or_file, system))]
    marks = {c["fingerprint"]: c for c in found.get("claims", [])}
    for number, claim in enumerate(system.claims, 1):
        result = marks.get(fingerprint(claim))
        parts.append(f"claim {number}\n" + textwrap.indent(_claim_told(claim, result), "  "))
    if found:
        machine = found.get("machine", {})
        when = f"verified {found.get('date')} on {machine.get('cores')} cores of {machine.get('processor')}"
        parts.append(when if found.get("claims") else "searched, not verified")
    return "\n\n".join(parts)


def _facts(slug_or_file: str, system: System) -> list[str]:
    paper = system.paper + (f", arXiv:{system.arxiv}" if system.arxiv else "")
    facts = {"paper": paper, "follows": system.follows, "changes": ", ".join(system.roles)}
    facts |= {
        "built from": ", ".join(system.built_from),
        "extras": ", ".join(system.extras),
        "file": str(systems.path_of(slug_or_file)),
    }
    return [f"{k:11s} {v}" for k, v in facts.items() if v]


def _claim_told(claim: Claim, result: Mapping[str, Any] | None) -> str:
    lines = textwrap.wrap(claim.statement, WIDTH)
    if isinstance(claim, Comparison):
        others = [a for a in claim.arms if a not in (claim.better, claim.than)]
        lines += [f"{claim.better} against {claim.than} in {metric_text(vars(claim.metric))}, {claim.budget} each"]
        lines += [f"with --full also {', '.join(others)}"] if others else []
        lines += (
            [f"grid {text_of(claim.grid)}; chosen {'; '.join(f'{a}: {text_of(c)}' for a, c in claim.chosen.items())}"]
            if claim.grid
            else []
        )
    lines += _listed("differs from the publication", claim.differences) + _listed("tried", [claim.tried] if claim.tried else [])
    return "\n".join([*lines, claim_text(result) if result else "not verified"])


def _listed(title: str, points: Any) -> list[str]:
    wrapped = [line for p in points for line in textwrap.wrap(p, WIDTH, initial_indent="- ", subsequent_indent="  ")]
    return [f"{title}:", *wrapped] if wrapped else []


def metric_text(metric: Mapping[str, Any]) -> str:
    """
    >>> metric_text({"name": "eval/success", "how": "last"}), metric_text({"name": "eval/success", "how": "mean"})
    ('eval/success at the end', 'eval/success, mean of the curve')
    >>> metric_text({"name": "eval/return", "how": "reached", "at": 0.9, "along": "samples"})
    'samples until eval/return is 0.9'
    """
    if metric["how"] == "reached":
        return f"{metric['along']} until {metric['name']} is {metric['at']:g}"
    return metric["name"] + {"last": " at the end", "mean": ", mean of the curve", "best": ", best of the curve"}[metric["how"]]


def claim_text(result: Mapping[str, Any]) -> str:
    """A claim's verdict in a sentence or two."""
    return f"{result['verdict']}: {_KINDS[result['kind']](result)}"


def _comparison_text(result: Mapping[str, Any]) -> str:
    better, than = (result["arms"][result[k]] for k in ("better", "than"))
    a, b = (number(statistics.fmean(arm["scores"])) for arm in (better, than))
    cost = ", ".join(f"{name} {arm['core_seconds']:.1f}" for name, arm in result["arms"].items())
    means = f"{result['better']} {a}, {result['than']} {b} in {metric_text(result['metric'])}"
    others = {name: arm for name, arm in result["arms"].items() if name not in (result["better"], result["than"])}
    lines = [
        f"{means}; difference {interval_text(result['effect'])} over {len(result['seeds'])} seeds each",
        *(f"  {name} {number(statistics.fmean(arm['scores']))}" for name, arm in others.items()),
        f"core-seconds a training: {cost}; {result['wall_seconds']:.0f} s in all",
    ]
    return "\n".join(lines)


def _bound_text(result: Mapping[str, Any]) -> str:
    side = "above" if result["above"] else "below"
    return f"{interval_text(result['effect'])}, to be {side} {number(result['limit'])}, over {len(result['seeds'])} seeds"


def _exact_text(result: Mapping[str, Any]) -> str:
    worst = max(result["values"], key=lambda name: result["values"][name]["error"] or 0.0)
    v = result["values"][worst]
    return f"largest error {v['error']:.2g} of {len(result['values'])} numbers ({worst}), tolerance {result['tolerance']:.2g}"


_KINDS = {"comparison": _comparison_text, "bound": _bound_text, "exact": _exact_text}


def interval_text(interval: Mapping[str, float]) -> str:
    """
    >>> interval_text({"estimate": 0.21456, "low": 0.1, "high": 0.3333})
    '0.215 [0.1, 0.333]'
    """
    return f"{number(interval['estimate'])} [{number(interval['low'])}, {number(interval['high'])}]"


def number(x: float | None) -> str:
    """Three digits, with thousands told apart.

    >>> number(0.12345), number(12345.6), number(-2.0)
    ('0.123', '12,346', '-2')
    """
    return "–" if x is None else f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def search_table(found: Mapping[str, Any]) -> str:
    """Every point's mean and spread for each arm; the best has a star."""
    lines = []
    for arm, rows in found["table"].items():
        for row in rows:
            star = "*" if row["choice"] == found["best"][arm] else " "
            scores, point = row["scores"], text_of(row["choice"])
            each = " ".join(map(number, scores))
            lines.append(f"{star} {arm:20s} {point:30s} {number(statistics.fmean(scores)):>9s}  ({each})")
    return "\n".join(lines)
