# SPDX-License-Identifier: Apache-2.0
"""Train your own model on your own data, or an agent in an environment, with a reward expression.

  guerdon train --model ./my-model --data problems.jsonl --reward 'numeric + 0.2*format("<b>.*</b>")' --out runs/mine

Each JSONL line has a `prompt` (text, or messages with role and content) and whatever fields the reward reads, such as `answer`.
--data 'reasoning_gym:NAME?size=500&seed=1' generates tasks instead. Some tasks are held back, and success on them is reported.
Further settings are key=value, e.g. steps=200 lr=1e-5 lora=16; `guerdon show train` lists them. The same command goes on with a
run that was interrupted. OUT/policy is what Transformers (with lora: PEFT) loads.

--watch looks at what the reward doesn't read (length, repetition, entropy ...) and says when it goes wrong; gold='EXPR' names
what is really meant, watched and never trained on; watch_stop=gold ends the run when the reward rises and the gold falls.

  guerdon train --env CartPole-v1 --reward 'environment + 0.1*path.py:my_bonus' --out runs/pole

steps a Gymnasium environment instead, and the reward is one of its steps: `environment` is what the environment itself gives,
field('NAME') a number in a step's info, and a function of your own (with @reward(level="step")) reads `observation`, `action`,
`next_observation`. Here `guerdon show control` lists the settings, and OUT/policy is what ActorCritic.load reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from guerdon.cli.run import observe_argument, run, settings_of
from guerdon.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="directory or name of a Hugging Face causal language model")
    parser.add_argument("--data", help="FILE.jsonl or reasoning_gym:NAME")
    parser.add_argument("--env", metavar="ID", help="Gymnasium environment, instead of --model and --data")
    parser.add_argument("--reward", required=True, metavar="EXPR", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--out", required=True, type=Path, help="run directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--watch", action="store_true", help="look at what the reward doesn't read; short for watch=true")
    observe_argument(parser)
    parser.add_argument("settings", metavar="key=value", nargs="*", help="see `guerdon show train` and `guerdon show control`")


def execute(options: argparse.Namespace) -> None:
    name = "control" if options.env else "train"
    of = ("env",) if options.env else ("model", "data")
    there = {k: getattr(options, k) for k in ("env", "model", "data") if getattr(options, k) is not None}
    if there.keys() != set(of):
        raise InputError(
            f"train: expected --model and --data, or --env alone, got {' and '.join(f'--{k}' for k in there) or 'none of them'}."
        )
    given = {**there, "reward": options.reward, "seed": options.seed, **({"watch": True} if options.watch else {})}
    run(name, {**given, **settings_of(name, options.settings)}, options.out, options.observe)
