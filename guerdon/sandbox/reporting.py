# SPDX-License-Identifier: Apache-2.0
"""What this system enforces, found by trying."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from guerdon.sandbox.box import Sandbox
from guerdon.sandbox.connection import ENVIRONMENT, command
from guerdon.sandbox.layers import LAYERS, SandboxUnavailable

TRIAL_LIMIT = 120.0
"""Seconds that trying all mechanisms may take."""


@dataclass(frozen=True)
class Trial:
    """A mechanism of the kernel tried by itself, in a child: the forbidden thing worked before it stood, and not after.

    layer      what it serves
    tried      the forbidden thing
    found      "" where the mechanism holds, else what was found
    """

    mechanism: str
    layer: str
    tried: str
    found: str

    def row(self) -> tuple[str, str, str, str]:
        return self.layer, self.mechanism, self.tried, self.found or "holds"


@dataclass(frozen=True)
class Report:
    """What is enforced here. ``print`` it for the table.

    layers      layer -> whether it holds in a cell as programs have it, with all that could be built
    mechanisms  each by itself
    reason      why there is no sandbox at all; "" where there is one
    """

    layers: dict[str, bool]
    mechanisms: tuple[Trial, ...] = ()
    reason: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(layer for layer, holds in self.layers.items() if not holds)

    def __str__(self) -> str:
        rows = [("layer", "mechanism", "tried", "found")]
        for layer, holds in self.layers.items():
            rows.append((layer, "all together", "in a cell, as programs have it", "holds" if holds else "MISSING"))
            rows += [t.row() for t in self.mechanisms if t.layer == layer]
        rows += [t.row() for t in self.mechanisms if t.layer not in self.layers]
        lines = [f"{layer:<12}{mechanism:<22}{tried:<34}{found}" for layer, mechanism, tried, found in rows]
        return "\n".join([*lines, *([self.reason] if self.reason else [])])


def report() -> Report:
    """Try every layer in a cell, and every mechanism by itself. Takes about half a second."""
    nothing = dict.fromkeys(LAYERS, False)
    if sys.platform != "linux":
        return Report(nothing, reason=f"needs Linux, whose kernel does the guarding; this is {sys.platform}")
    done = subprocess.run(command("trials"), capture_output=True, timeout=TRIAL_LIMIT, cwd="/", env=ENVIRONMENT, check=False)
    mechanisms = tuple(Trial(**row) for row in json.loads(done.stdout)) if done.returncode == 0 else ()
    try:
        with Sandbox(1, without=LAYERS) as box:
            return Report(box.layers(), mechanisms)
    except SandboxUnavailable as error:
        return Report(nothing, mechanisms, str(error))
