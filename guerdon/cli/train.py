# SPDX-License-Identifier: Apache-2.0
"""Train your own model on your own data with a reward expression.

  guerdon train --model ./my-model --data problems.jsonl --reward 'numeric + 0.2*format("<b>.*</b>")' --out runs/mine

Each JSONL line has a `prompt` (text, or messages with role and content) and whatever fields the reward reads, such as `answer`.
--data 'reasoning_gym:NAME?size=500&seed=1' generates tasks instead. Some tasks are held back, and success on them is reported.
Further settings are key=value, e.g. steps=200 lr=1e-5 lora=16; `guerdon show train` lists them. The same command goes on with a
run that was interrupted. OUT/policy is what Transformers (with lora: PEFT) loads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from guerdon.cli.run import observe_argument, run, settings_of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="directory or name of a Hugging Face causal language model")
    parser.add_argument("--data", required=True, help="FILE.jsonl or reasoning_gym:NAME")
    parser.add_argument("--reward", required=True, metavar="EXPR", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--out", required=True, type=Path, help="run directory")
    parser.add_argument("--seed", type=int, default=0)
    observe_argument(parser)
    parser.add_argument("settings", metavar="key=value", nargs="*", help="see `guerdon show train`")


def execute(options: argparse.Namespace) -> None:
    given = {"model": options.model, "data": options.data, "reward": options.reward, "seed": options.seed}
    run("train", {**given, **settings_of("train", options.settings)}, options.out, options.observe)
