# SPDX-License-Identifier: Apache-2.0
"""Running programs that nobody vouches for, without danger: on Linux, without a container engine, in milliseconds.

Sandbox              runs jobs, each item within its limits, and says what became of it
Scripts, Calls       jobs: a program and texts for its standard input, or calls of its functions
Episodes             job: a reward program and the steps of episodes
run_tests            unit tests of programs, compared outside; read_tests reads them
report               what this system enforces, found by trying
SandboxUnavailable   raised where a layer is missing that nobody said to do without
"""

from guerdon.sandbox.box import Sandbox, shared_box
from guerdon.sandbox.jobs import Call, Calls, Episodes, Fate, Outcome, Scripts
from guerdon.sandbox.layers import LAYERS, SandboxUnavailable
from guerdon.sandbox.reporting import Report, Trial, report
from guerdon.sandbox.unit_tests import UnitTest, Verdict, read_tests, run_tests

__all__ = [
    "LAYERS",
    "Call",
    "Calls",
    "Episodes",
    "Fate",
    "Outcome",
    "Report",
    "Sandbox",
    "SandboxUnavailable",
    "Scripts",
    "Trial",
    "UnitTest",
    "Verdict",
    "read_tests",
    "report",
    "run_tests",
    "shared_box",
]
