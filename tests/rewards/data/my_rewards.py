# SPDX-License-Identifier: Apache-2.0
"""A user's file of rewards."""

from guerdon.rewards.function import reward


@reward(bounds=(0, 1))
def correct(completion, answer):
    return completion.strip() == answer


@reward(batched=True, budget=20.0)
def lengths(completion):
    return [len(c) for c in completion]


@reward(level="segment", split=r"\n")
def shouts(segment, index, answer="none"):
    """How loud a line is."""
    return sum(c.isupper() for c in segment) + 10 * index


def plain(segment):
    return len(segment)
