# SPDX-License-Identifier: Apache-2.0
"""Keep a longer run's figures for the quickstart's report: python benchmarks/store_longer_run.py runs/quickstart-lengths

Copies `grid` or `lengths` from the run's result.json, with the versions it ran at, to guerdon/recipes/data/.
"""

import json
import sys
from pathlib import Path

DATA = Path(__file__).parents[1] / "guerdon" / "recipes" / "data"


def main(run: Path) -> None:
    result, config = (json.loads((run / name).read_text()) for name in ("result.json", "config.json"))
    kinds = [k for k in ("grid", "lengths") if k in result]
    if not kinds:
        sys.exit(
            f"{run}: expected a result with `grid` or `lengths`, got {', '.join(result)}. Usual cause: another recipe's run."
        )
    for kind in kinds:
        path = DATA / f"quickstart_{kind}.json"
        path.write_text(json.dumps({**result[kind], "versions": config["versions"]}, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
