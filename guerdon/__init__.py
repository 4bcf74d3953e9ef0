# SPDX-License-Identifier: Apache-2.0
"""guerdon: the reward is the object you work on. Compose it, learn it, check it, train with it.

>>> from guerdon import checkers, reward
>>> @reward
... def polite(completion):
...     return "please" in completion
>>> r = checkers.numeric() + 0.5 * polite
>>> r(completions=["please: 4", "5"], answer=["4", "4"]).total.values.tolist()
[[1.5], [0.0]]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.comparisons import Comparisons
    from guerdon.rewards import Reward, checkers, linear, max_of, mean_of, min_of, reward
    from guerdon.rewards.parse import parse
    from guerdon.rollouts import Rollouts
    from guerdon.scores import Bounds, Scores, Status

__version__ = "0.1.0"

_PLACES = {
    "Bounds": "guerdon.scores",
    "Comparisons": "guerdon.comparisons",
    "Reward": "guerdon.rewards",
    "Rollouts": "guerdon.rollouts",
    "Scores": "guerdon.scores",
    "Status": "guerdon.scores",
    "checkers": "guerdon.rewards",
    "linear": "guerdon.rewards",
    "max_of": "guerdon.rewards",
    "mean_of": "guerdon.rewards",
    "min_of": "guerdon.rewards",
    "parse": "guerdon.rewards",
    "reward": "guerdon.rewards",
}

__all__ = [
    "Bounds",
    "Comparisons",
    "Reward",
    "Rollouts",
    "Scores",
    "Status",
    "checkers",
    "linear",
    "max_of",
    "mean_of",
    "min_of",
    "parse",
    "reward",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that ``import guerdon`` and the command line start at once."""
    if name not in _PLACES:
        raise AttributeError(f"module 'guerdon' has no attribute {name!r}")
    if name == "checkers":
        return importlib.import_module("guerdon.rewards.checkers")
    return getattr(importlib.import_module(_PLACES[name]), name)
