# SPDX-License-Identifier: Apache-2.0
"""An audit as one HTML file, that asks nothing of the network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from guerdon.audit.auditing import Audit
from guerdon.errors import InputError


def write_page(found: Audit, subject: str, path: Path) -> None:
    """Write the page; ``subject`` says in words what the reward was audited on. Needs ``guerdon[report]``."""
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "audit: a page needs the package `jinja2`, which is not installed. Install it with: pip install 'guerdon[report]'."
        ) from error
    own = resources.files("guerdon.audit").joinpath("page.html.j2").read_text(encoding="utf-8")
    style = resources.files("guerdon.report").joinpath("style.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(own).render(audit=found, subject=subject, verdict=verdict(found), style=style)
    path.write_text(page, encoding="utf-8")


def verdict(found: Audit) -> str:
    """The audit in one sentence."""
    not_run = [c.name for c in found.checks if c.outcome == "not run"]
    left = f"; not run: {', '.join(not_run)}" if not_run else ""
    bad = [c.name for c in found.checks if c.findings]
    if not bad:
        return f"Nothing found in {len(found.checks) - len(not_run)} checks{left}"
    return f"{len(found.findings)} finding{'s' * (len(found.findings) != 1)}, in {', '.join(bad)}{left}"
