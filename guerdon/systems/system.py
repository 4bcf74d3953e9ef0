# SPDX-License-Identifier: Apache-2.0
"""What a system file says about itself: a published method as data, with a claim that can be run.

A system file is one module below this package. Its folder is the family, its file name the slug (``prm_clip_delta.py`` is
``prm-clip-delta``), and it holds, in this order: the idea and the equation (module docstring), the new mathematics as pure
functions, the assembly of library parts with the paper's defaults, and one ``SYSTEM``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from guerdon.errors import InputError
from guerdon.training.recipe import Learning, Recipe

Arm = Callable[..., Recipe | Learning]
"""(seed, start, **choice) -> what to run. ``start`` is the directory that ``prepare`` was run in, None without one."""


@dataclass(frozen=True)
class Metric:
    """One figure of a run, from the lines of its metrics.jsonl that have ``name``.

    how     last, mean (over the curve: how fast and how far), best, or reached: the ``along`` at which it first is ``at`` or
            better (where it never is, twice the last ``along``)
    higher  whether higher values of ``name`` are better; a ``reached`` is better when it is smaller, whatever ``higher`` says
    """

    name: str
    how: str = "last"
    higher: bool = True
    at: float | None = None
    along: str = "samples"

    def __post_init__(self) -> None:
        if self.how not in ("last", "mean", "best", "reached") or (self.how == "reached") != (self.at is not None):
            raise InputError(
                f"metric `{self.name}`: expected `how` last, mean or best, or reached with a level `at`, "
                f"got {self.how!r} with at={self.at}."
            )


@dataclass(frozen=True)
class Comparison:
    """A claim that one arm does better than another at the same budget. A sequential test over seeds decides.

    arms         name -> Arm; ``better`` and ``than`` name the two that decide, the others run with ``--full`` only
    metric       what is compared
    budget       what all arms get, in samples or updates, as text
    effect       smallest difference worth having, in the metric's units (0: any); the claim doesn't hold if it is surely less
    prepare      seed -> a Recipe whose trained policy all arms of that seed start from
    grid         hyper-parameter -> values tried, the same for every arm; ``chosen``: arm -> its best values, on development seeds
    differences  from the published experiment, each with its reason
    interims     batches of ``batch`` seeds at most, before the test gives up
    first_seed   of the seeds that decide; those below it are for developing
    """

    statement: str
    arms: Mapping[str, Arm]
    better: str
    than: str
    metric: Metric
    budget: str
    effect: float = 0.0
    prepare: Callable[[int], Recipe] | None = None
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differences: Sequence[str] = ()
    batch: int = 5
    interims: int = 3
    alpha: float = 0.05
    first_seed: int = 1000
    tried: str = ""

    def __post_init__(self) -> None:
        unknown = [a for a in (self.better, self.than, *self.chosen) if a not in self.arms]
        if unknown or self.better == self.than:
            raise InputError(
                f"comparison: expected `better`, `than` and the keys of `chosen` among the arms {', '.join(self.arms)}, "
                f"the first two not the same; got {self.better}, {self.than} and {', '.join(self.chosen) or 'none'}."
            )


@dataclass(frozen=True)
class Bound:
    """A claim that a statistic lies above or below a number: the interval of its mean over seeds decides.

    ``measure(seed)`` -> the statistic's value. Held: the whole ``confidence`` interval lies on the right side of ``limit``;
    not held: on the wrong side.
    """

    statement: str
    measure: Callable[[int], float]
    limit: float
    above: bool
    seeds: int = 10
    confidence: float = 0.95
    differences: Sequence[str] = ()
    first_seed: int = 1000
    tried: str = ""


@dataclass(frozen=True)
class Exact:
    """A claim of identity: ``measure()`` gives name -> (found, expected), equal to ``tolerance`` (absolute)."""

    statement: str
    measure: Callable[[], Mapping[str, tuple[float, float]]]
    tolerance: float
    differences: Sequence[str] = ()
    tried: str = ""


Claim = Comparison | Bound | Exact


@dataclass(frozen=True)
class Example:
    """A pure function with small inputs, from which the contract tests make their cases.

    ``inputs(dtype)`` -> keyword arguments; the tensors among them are of ``dtype`` where they are floating.
    ``rows``: names of the inputs whose first dimension is rows: permuting them permutes the result.
    ``padded``: names of the inputs [N, T, ...] whose masked steps (input ``mask``) may hold anything.
    """

    function: Callable[..., Any]
    inputs: Callable[[Any], dict[str, Any]]
    rows: Sequence[str] = ()
    padded: Sequence[str] = ()


@dataclass(frozen=True)
class Reduction:
    """A special case that equals another method: ``values()`` -> (this one, the parent), to 1e-6 relative."""

    statement: str
    values: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class System:
    """A published method. The first of ``claims`` decides its verdict.

    title       as people say it               paper       "Lastname Year"
    arxiv       id, "" if there is none        roles       what the method changes, as in the table
    extras      of guerdon that it needs       follows     "paper", "code", or which of them where
    exempt      contract test -> why it does not apply
    """

    title: str
    paper: str
    arxiv: str
    roles: Sequence[str]
    claims: Sequence[Claim]
    built_from: Sequence[str]
    examples: Sequence[Example] = ()
    reductions: Sequence[Reduction] = ()
    extras: Sequence[str] = ()
    follows: str = "paper"
    exempt: Mapping[str, str] = field(default_factory=dict)


Start = Path | None
