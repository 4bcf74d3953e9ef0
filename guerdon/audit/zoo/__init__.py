# SPDX-License-Identifier: Apache-2.0
"""The zoo: rewards that are known to be bad, each with its defect, and rewards that are known to be good.

Detectors are measured on it. It has two halves: whoever writes or tunes a detector looks at ``first`` alone; ``held_out`` was
written by somebody who had seen no detector, and is only ever measured. A module of a half ends in ``SPECIMENS``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from guerdon.audit.subject import Episodes, Images, Subject, Texts
from guerdon.errors import InputError
from guerdon.rewards import Reward

HALVES = ("first", "held_out")
DOMAINS: dict[str, type] = {"text": Texts, "control": Episodes, "image": Images}


@dataclass(frozen=True)
class Specimen:
    """A reward whose soundness is known.

    reward   () -> the reward under audit, made anew
    gold     () -> what was meant: one value an episode, higher is better. It is never what a detector is to be fooled by
    subject  () -> what they are scored on
    defect   "" for a sound reward; else a few words that name what is wrong with it
    about    what the reward is for, and why it is right or how it goes wrong, in a sentence or two
    source   where such a reward was seen: a paper, an incident; "" for common knowledge
    """

    name: str
    reward: Callable[[], Reward]
    gold: Callable[[], Reward]
    subject: Callable[[], Subject]
    about: str
    defect: str = ""
    source: str = ""

    @property
    def good(self) -> bool:
        return not self.defect


def specimens(half: str) -> list[tuple[str, Specimen]]:
    """(domain, specimen) of every specimen of a half, by domain and name."""
    if half not in HALVES:
        raise InputError(f"zoo: the halves are {' and '.join(HALVES)}, got {half!r}.")
    package = importlib.import_module(f"{__name__}.{half}")
    found: list[tuple[str, Specimen]] = []
    for module in pkgutil.iter_modules(package.__path__):
        domain = module.name.partition("_")[0]
        made = importlib.import_module(f"{package.__name__}.{module.name}").SPECIMENS
        found += [(domain, s) for s in sorted(made, key=lambda s: s.name)]
    names = [s.name for _, s in found]
    if len(set(names)) != len(names) or {d for d, _ in found} - set(DOMAINS):
        raise InputError(f"zoo: expected names that occur once and modules named after {', '.join(DOMAINS)}, got {names}.")
    return found
