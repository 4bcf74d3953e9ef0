# SPDX-License-Identifier: Apache-2.0
"""The exceptions guerdon raises on purpose.

    GuerdonError
    ├── InputError          something a user handed us is wrong: a file, a field, a model directory
    ├── ShapeError          a tensor has another shape or dtype than its function's docstring says
    ├── ExpressionError     a reward expression cannot mean what it says (raised when it is built)
    ├── RewardFailure       too large a share of a reward's units failed for training to go on
    ├── EnvironmentFailure  too large a share of a batch's steps in environments failed
    └── CheckpointError     a run directory or saved file cannot be continued or read

A message has four parts: whose fault, what was expected (names and numbers), what came, and the usual cause.
The command line prints the message alone and exits with 2.
"""


class GuerdonError(Exception):
    """Base of every error guerdon raises on purpose."""


class InputError(GuerdonError, ValueError):
    """Something a user handed us is wrong: a file, a field, a name, a model directory."""


class ShapeError(GuerdonError, ValueError):
    """A tensor has another shape or dtype than its function's docstring says."""


class ExpressionError(GuerdonError, ValueError):
    """A reward expression cannot mean what it says; raised when the expression is built."""


class RewardFailure(GuerdonError, RuntimeError):
    """A larger share of a reward's units failed than the recipe allows."""


class EnvironmentFailure(GuerdonError, RuntimeError):
    """A larger share of a batch's steps in environments failed than the source allows."""


class CheckpointError(GuerdonError, RuntimeError):
    """A run directory, a checkpoint or a saved file cannot be continued or read."""


def check_shape(whose: str, name: str, tensor, expected: tuple[int | None, ...], cause: str = "") -> None:
    """Raise ShapeError unless ``tensor.shape`` matches ``expected`` (None: any size; fewer dims than given is an error).

    >>> import torch
    >>> check_shape("gae", "value", torch.zeros(2, 3), (2, None))
    >>> check_shape("gae", "value", torch.zeros(2), (2, 3), "a value per row instead of per step")
    Traceback (most recent call last):
    ...
    guerdon.errors.ShapeError: gae: `value` should have shape [2, 3], got [2]. Usual cause: a value per row instead of per step.
    """
    got = tuple(tensor.shape)
    if len(got) == len(expected) and all(e is None or e == g for e, g in zip(expected, got, strict=True)):
        return
    want = "[" + ", ".join("*" if e is None else str(e) for e in expected) + "]"
    why = f" Usual cause: {cause}." if cause else ""
    raise ShapeError(f"{whose}: `{name}` should have shape {want}, got {list(got)}.{why}")
