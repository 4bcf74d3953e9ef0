# SPDX-License-Identifier: Apache-2.0
"""The page of all systems, in Markdown, made from their files and stored results; a test holds that docs/systems.md is this."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guerdon import systems
from guerdon.systems.picture import picture
from guerdon.systems.results import fingerprint, stored
from guerdon.systems.system import Claim, System
from guerdon.systems.telling import claim_text, verdict_on

COMMAND = "guerdon systems table --write docs/systems.md"

HEAD = f"""# Systems

Published methods as short files, each with a claim that was put to the test. `guerdon systems verify SLUG` does a verdict again;
[Adding a system](adding-a-system.md) says how a file of one's own gets here. This page is written by
`{COMMAND}` from the files in `guerdon/systems/` and their stored results.

**Held**: with seeds that were not used while developing, a sequential test (AdaStop, chance of a false verdict at most 5 %)
declares the method better than its baseline, both after the same search; or an interval lies on the claimed side of a number; or
numbers are equal to a tolerance. **Not held**: the opposite was found. **Undecided**: neither, after the last look.
Intervals are 95 %. The experiments are small on purpose; what differs from the published ones is said with each.
"""


def page() -> str:
    """The whole page."""
    found = {slug: systems.system_of(slug) for slug in sorted(systems.slugs(), key=lambda s: (systems.family_of(s), s))}
    rows = ["| system | changes | built from | paper | verdict |", "|---|---|---|---|---|"]
    rows += [_row(slug, system) for slug, system in found.items()]
    parts = [HEAD, "\n".join(rows)]
    for family, members in itertools.groupby(found.items(), lambda item: systems.family_of(item[0])):
        about = inspect.getdoc(importlib.import_module(f"{systems.__name__}.{family}")) or ""
        parts += [f"## {family}\n\n{about}", *(_section(slug, system) for slug, system in members)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write(path: Path) -> list[Path]:
    """Write the page, and the pictures into a folder of its name beside it; returns what was written."""
    pictures = {f"{slug}.svg": drawn for slug in systems.slugs() if (drawn := picture_of(slug))}
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in pictures.items():
        (folder / name).write_text(drawn, encoding="utf-8")
    path.write_text(page(), encoding="utf-8")
    return [path, *(folder / name for name in pictures)]


def picture_of(slug: str) -> str:
    """Of the claim that decides; empty where there is none to draw."""
    claims = stored(slug).get("claims")
    return picture(claims[0]) if claims else ""


def _row(slug: str, system: System) -> str:
    cells = [f"[{system.title}](#{slug})", ", ".join(system.roles), ", ".join(f"`{b}`" for b in system.built_from)]
    return f"| {' | '.join([*cells, _paper(system), verdict_on(slug)])} |"


def _paper(system: System) -> str:
    return f"[{system.paper}](https://arxiv.org/abs/{system.arxiv})" if system.arxiv else system.paper


def _section(slug: str, system: System) -> str:
    found = stored(slug)
    results = {c["fingerprint"]: c for c in found.get("claims", [])}
    lines = [f'<a id="{slug}"></a>', "", f"### {system.title}", "", f"{_idea(slug)} {_paper(system)}, `{slug}`.", ""]
    for claim in system.claims:
        lines += _claim(claim, results.get(fingerprint(claim)))
    if picture_of(slug):
        lines += ["", f"![Curves and seeds of {system.title}](systems/{slug}.svg)"]
    differences = list(dict.fromkeys(d for c in system.claims for d in c.differences))
    lines += ["", "Differs from the published experiment:", "", *(f"- {d}" for d in differences)] if differences else []
    tried = list(dict.fromkeys(c.tried for c in system.claims if c.tried))
    lines += ["", f"Tried: {' '.join(tried)}"] if tried else []
    if found.get("claims"):
        machine = found["machine"]
        lines += ["", f"{found['date']}, {machine['cores']} cores of {machine['processor']}; `{' '.join(found['command'])}`."]
    return "\n".join(lines)


def _claim(claim: Claim, result: Mapping[str, Any] | None) -> list[str]:
    text = claim_text(result) if result else "not verified"
    verdict, _, rest = text.partition(":")
    return [f"- {claim.statement}", *([f"  **{verdict}**:{_joined(rest)}"] if rest else [f"  **{text}**"])]


def _joined(text: str) -> str:
    """Several lines of a terminal as one of a page."""
    return "; ".join(line.strip() for line in text.splitlines()).replace("; ;", ";").join((" ", ""))


def _idea(slug: str) -> str:
    """The first paragraph of the file without its title."""
    first = (inspect.getdoc(systems.module_of(slug)) or "").split("\n\n")[1:2]
    return " ".join(" ".join(first).split())
