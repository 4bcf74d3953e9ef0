# SPDX-License-Identifier: Apache-2.0
"""Run a recipe by name, one of your own in a Python file, or an earlier run again.

WHAT is a built-in recipe, a file with one function that returns a Recipe, or a run directory (or its config.json);
key=value are arguments of that function. The same command goes on with a run that was interrupted, and so does
`guerdon run DIRECTORY`; with another --out, that directory's run is done again from its beginning.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.errors import InputError
from guerdon.training.headline import headline_of, is_share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help="built-in recipe, path/to/file.py, or run directory")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="arguments of the recipe, e.g. seeds=11,12")
    parser.add_argument("--out", type=Path, help="run directory (default: runs/NAME, or the run directory itself)")
    parser.add_argument("--seed", type=int, help="short for seed=S")
    observe_argument(parser)


def observe_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--observe",
        choices=("tensorboard", "wandb"),
        action="append",
        default=[],
        help="tell it to a tracker too (may be repeated)",
    )


def execute(options: argparse.Namespace) -> None:
    name, place = options.what, Path("runs") / Path(options.what).stem
    given: dict[str, Any] = {}
    if Path(name).is_dir() or name.endswith(".json"):
        place = Path(name) if Path(name).is_dir() else Path(name).parent
        name, given = stored_run(place)
    settings = {**given, **settings_of(name, options.settings)}
    if options.seed is not None:
        settings["seed"] = options.seed
    run(name, settings, options.out or place, options.observe)


def run(name: str, settings: Mapping[str, Any], out: Path, observe: Sequence[str] = ()) -> None:
    """Run, report, and say where to look."""
    from guerdon.training import workers

    finished = (out / "result.json").exists()
    if not finished:
        workers.start_server()  # before the imports here, which take as long
    from guerdon import recipes
    from guerdon.report import write_report
    from guerdon.training.observers import TensorBoard, Terminal, WandB
    from guerdon.training.run import run as run_directory

    checkpoints = sorted(out.glob("checkpoint/step-*"))
    trackers = {"tensorboard": TensorBoard, "wandb": WandB}
    observers: list[Any] = [] if finished else [Terminal(), *(trackers[name]() for name in observe)]
    if checkpoints and not finished:
        print(f"{out}: going on from {checkpoints[-1].name.replace('-', ' ')}")
    result = run_directory(recipes.make, name, settings, out, observers, command_of(name, settings, out))
    if finished:
        print(f"{out}: finished already, nothing was run. Give another --out to run it again.")
    page = write_report([out])
    for line in summary(result):
        print(f"\n{line}")
    policies = [out / p for p in ("policy", "best") if (out / p).is_dir()]
    print(
        "".join(
            f"\n{what:9s}{path}"
            for what, path in [("report", page), ("result", out / "result.json"), *((p.name, p) for p in policies)]
        )
    )


SUFFIXES = ("_start", "", "_best")


def summary(result: Mapping[str, Any]) -> list[str]:
    """What a run came to, in a line: its verdict if it has one, else held-out success at start, end and best.

    >>> summary({"eval/success_start": 0.25, "eval/success": 0.5, "eval/success_best": 0.625})
    ['held-out success 25.0% -> 50.0% (best 62.5%)']
    >>> summary({"eval/return_start": 21.4, "eval/return": 487.25})
    ['return 21.4 -> 487.2']
    """
    verdict = result.get("verdict")
    if isinstance(verdict, Mapping) and "text" in verdict:
        return [verdict["text"]]

    def moved(key: str | None) -> str | None:
        start, end, best = (None if (x := result.get(f"{key}{suffix}")) is None else _figure(key or "", x) for suffix in SUFFIXES)
        if start is None or end is None:
            return None
        return f"{str(key).removeprefix('eval/')} {start} -> {end}" + (f" (best {best})" if best is not None else "")

    headline = headline_of(k for k in result if not k.endswith(("_start", "_best")))
    told = [m for m in map(moved, dict.fromkeys([headline, "eval/greedy"])) if m]
    return [("held-out " if is_share(headline or "") else "") + ", ".join(told)] if told else []


def _figure(key: str, x: float) -> str:
    """Per cent, or the number where it is no share."""
    return f"{x:.1%}" if is_share(key) and 0 <= x <= 1 else f"{x:.4g}"


def command_of(name: str, settings: Mapping[str, Any], out: Path) -> list[str]:
    """The command that repeats a run."""
    told = [f"{k}={','.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for k, v in settings.items()]
    return ["guerdon", "run", name, *told, "--out", str(out)]


def stored_run(directory: Path) -> tuple[str, dict[str, Any]]:
    """(recipe, arguments) of the run in ``directory``, from its config.json."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        recipe, arguments = config["recipe"], config["arguments"]
    except FileNotFoundError as e:
        raise InputError(
            f"run: {directory} has no config.json. Usual cause: the parent of a run directory, or a run that never started."
        ) from e
    except (json.JSONDecodeError, KeyError, TypeError) as e:
        raise InputError(
            f"{path}: expected the `recipe` and `arguments` of a run as JSON, got {e!r}. Usual cause: another program's file."
        ) from e
    if "arm" in config:
        raise InputError(f"run: {directory} is arm `{config['arm']}` of a study; give the study's directory, {directory.parent}.")
    return recipe, arguments


def settings_of(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """key=value as the recipe's arguments: as it stands where the argument is text, else what it reads as."""
    from guerdon import recipes

    if not texts:
        return {}
    parameters = inspect.signature(recipes.find(name)).parameters
    out = {}
    for text in texts:
        key, eq, value = text.partition("=")
        if not eq or not key.isidentifier():
            raise InputError(f"run: expected key=value, got {text!r}. Usual cause: a space around the equals sign.")
        is_text = key in parameters and parameters[key].annotation in (str, "str")
        out[key] = value if is_text else value_of(value)
    return out


def value_of(text: str) -> Any:
    """The Python literal that a text reads as, else the text itself.

    >>> [value_of(t) for t in ("11,12", "1e-3", "./tiny", "true", "None")]
    [(11, 12), 0.001, './tiny', True, None]
    """
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
