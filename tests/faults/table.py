# SPDX-License-Identifier: Apache-2.0
"""The grid as the tables of docs/faults.md; ``python -m tests.faults.table`` writes them into the page."""

from __future__ import annotations

from pathlib import Path

from tests.faults.cells import CELLS, Cell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- tables: made by python -m tests.faults.table -->", "<!-- end of tables -->"
SHOWN = {
    "function": "function",
    "function, pool": "function, pool",
    "batched": "batched",
    "batched, pool": "batched, pool",
    "segments": "segments",
    "TRL": "TRL",
    "verl": "verl",
}


def tables() -> str:
    """One table of the functions, one of the nodes that read a part, and one line for each other kind and place."""
    calls = [c for c in CELLS if c.place == "call"]
    parts = [c for c in calls if c.kind not in SHOWN and any(c.kind == k for k in _nodes())]
    rest = [c for c in CELLS if c not in parts and not (c.place == "call" and c.kind in SHOWN)]
    return "\n\n".join(
        [
            f"{len(CELLS)} cells.",
            "### Functions, called",
            _grid([c for c in calls if c.kind in SHOWN], list(SHOWN)),
            "### A part that fails, in what reads it",
            _grid(parts, _nodes()),
            "### Other kinds, and other places",
            _list(rest),
        ]
    )


def _nodes() -> list[str]:
    kinds = list(dict.fromkeys(c.kind for c in CELLS if c.place == "call"))
    return kinds[kinds.index("sum") : kinds.index("oracle") + 1]


def _grid(cells: list[Cell], kinds: list[str]) -> str:
    faults = list(dict.fromkeys(c.fault for c in cells))
    found = {(c.fault, c.kind): c.outcome for c in cells}
    rows = [["", *kinds], ["---"] * (len(kinds) + 1)]
    rows += [[f, *(found.get((f, k), "") for k in kinds)] for f in faults]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _list(cells: list[Cell]) -> str:
    rows = [["place", "kind", "outcome", "faults"], ["---"] * 4]
    for place, kind, outcome in dict.fromkeys((c.place, c.kind, c.outcome) for c in cells):
        faults = [c.fault for c in cells if (c.place, c.kind, c.outcome) == (place, kind, outcome)]
        rows.append([place, kind, outcome, ", ".join(faults)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page() -> str:
    """The page with its tables as they are now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
