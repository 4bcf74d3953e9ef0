# SPDX-License-Identifier: Apache-2.0
"""Every comparison of docs/performance.md, one after another on a machine that should be idle, then the page.

python benchmarks/run.py [NAME ...]     all, or some of RUNS: control, text, half, memory, mathematics, ...
python benchmarks/run.py page           the page alone, from the stored results
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ONE = {"OMP_NUM_THREADS": "1"}
RUNS: dict[str, tuple[list[str], dict[str, str]]] = {
    "control": (["control_against_sb3.py", "speed"], ONE),
    "text": (["text_against_trl.py", "speed", "--threads", "2"], {}),
    "half": (["text_against_trl.py", "half"], {}),
    "memory": (["text_against_trl.py", "memory"], {}),
    "mathematics": (["math_against_math_verify.py", "math"], ONE),
    "terms": (["math_against_math_verify.py", "terms"], ONE),
    "relabel": (["math_against_math_verify.py", "relabel"], ONE),
    "judges": (["judge_overlap.py", "run"], ONE),
    "start-up": (["start_up.py", "run"], {}),
}
APART = ("same_curves.py",)
"""What takes an hour, and is run by hand."""


def main() -> int:
    names = sys.argv[1:] or [*RUNS, "page"]
    if unknown := [n for n in names if n not in RUNS and n != "page"]:
        print(f"run.py: expected {', '.join(RUNS)} or page, got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    pages = [([script, "page"], {}) for script in dict.fromkeys([*(command[0] for command, _ in RUNS.values()), *APART])]
    failed = 0
    for name in names:
        for command, environment in pages if name == "page" else [RUNS[name]]:
            print("$", "python", *command, flush=True)
            done = subprocess.run([sys.executable, HERE / command[0], *command[1:]], env={**os.environ, **environment})
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
