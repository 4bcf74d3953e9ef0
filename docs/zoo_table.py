# SPDX-License-Identifier: Apache-2.0
"""The auditor's own figures for docs/auditing.md, from stored results.

guerdon audit zoo first --out benchmarks/results/zoo_first.json
guerdon audit zoo held_out --out benchmarks/results/zoo_held_out.json
python docs/zoo_table.py --write
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "auditing.md"
BEGIN, END = "<!-- zoo: made by docs/zoo_table.py -->", "<!-- end of zoo -->"


def made() -> str:
    lines = [
        BEGIN,
        "",
        "| half | bad rewards found | 95 % interval | alarms on good ones | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    stored = {half: json.loads((ROOT / f"benchmarks/results/zoo_{half}.json").read_text()) for half in ("first", "held_out")}
    for half, found in stored.items():
        cells = []
        for name in ("hits", "alarms"):
            e = found["rates"][name]
            cells += [f"{round(e['value'] * e['n'])} of {e['n']}", f"{e['low']:.0%} to {e['high']:.0%}"]
        lines.append(f"| {half.replace('_', '-')} | {' | '.join(cells)} |")
    lines += ["", "Missed or alarmed at:", ""]
    for half, found in stored.items():
        for s in found["specimens"]:
            if not s["right"]:
                what = f"missed: {s['defect']}" if s["defect"] else f"alarm: {s['counted']}"
                lines.append(f"- {half.replace('_', '-')}, {s['domain']}, `{s['name']}`: {what}")
    return "\n".join([*lines, "", END])


def page() -> str:
    """The page with the present table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + made() + rest.partition(END)[2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(made())
