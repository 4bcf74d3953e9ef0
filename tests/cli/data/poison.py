# SPDX-License-Identifier: Apache-2.0
"""A reward function of somebody's own that goes wrong in many ways: what the completion asks for."""

import os
import time
from math import inf, nan

from guerdon.rewards import reward


def poisoned(completion):
    if completion == "hang":
        time.sleep(60)
    if completion == "exit":
        os._exit(3)
    if completion == "raise":
        raise KeyError("no such thing")
    return {"inf": inf, "nan": nan, "text": "1.0", "none": None}.get(completion, float(len(completion)))


@reward(batched=True)
def short_batch(completion):
    return [1.0] * (len(completion) - 1)


def tidy(completion, answer):
    return 1.0 if completion.strip() == answer else 0.0


def good_step(segment):
    return "=" in segment
