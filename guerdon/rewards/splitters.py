# SPDX-License-Identifier: Apache-2.0
"""Splitters: levels made from the text. They map spans of characters to spans of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.rollouts import Rollouts

Span = tuple[int, int]


def compiled(pattern: str, whose: str) -> re.Pattern[str]:
    """The regular expression, or an error that shows where it goes wrong.

    >>> compiled("(a", "format")
    Traceback (most recent call last):
    ...
    guerdon.errors.ExpressionError: format: `pattern` should be a regular expression, got '(a': missing ), ...
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        where = f" at position {error.pos}" if error.pos is not None else ""
        got = f"{pattern!r}: {error.msg}{where}"
        raise ExpressionError(f"{whose}: `pattern` should be a regular expression, got {got}.") from error


def split_spans(text: str, pattern: str) -> list[Span]:
    r"""(start, end) of the segments of ``text`` that ``pattern`` separates. They cover the text without a gap.

    A separator belongs to the segment it ends; an empty one, such as a look-ahead, just cuts. A segment of white space alone
    joins the one before it (the first: the one after).

    >>> split_spans("a = 1\n\nb = 2\n", "\n"), split_spans("+8=3+4=7", r"(?=\+)")
    ([(0, 7), (7, 13)], [(0, 4), (4, 8)])
    >>> split_spans("", "\n")
    []
    """
    ends = [m.end() for m in re.finditer(pattern, text)]
    edges = sorted({0, *ends, len(text)})
    spans: list[Span] = []
    for start, end in pairwise(edges):
        before = text[spans[-1][0] : spans[-1][1]] if spans else ""
        if spans and (not text[start:end].strip() or not before.strip()):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def segment_level(offset: Tensor, spans: Sequence[Sequence[Span]], mask: Tensor) -> tuple[Tensor, list[list[Span]]]:
    """Unit ids [N, T] of the policy's own steps, and the spans of the units that have a step.

    ``offset`` [N, T, 2]: characters that each token wrote; ``spans``: for each row, without gaps; ``mask`` [N, T] bool. A token
    belongs to the segment that its first character is in; those at the end that write nothing (eos) to none, or stopping would
    be paid for the last segment. A segment in which no token begins joins the one before it (the first: the one after), so
    units count on without a gap.

    >>> offset = torch.tensor([[[0, 2], [2, 5], [5, 5]]])
    >>> segment_level(offset, [[(0, 2), (2, 4), (4, 5)]], torch.ones(1, 3, dtype=torch.bool))
    (tensor([[ 0,  1, -1]]), [[(0, 2), (2, 5)]])
    """
    ids = torch.full(mask.shape, -1, dtype=torch.long)
    units: list[list[Span]] = []
    first = offset[..., 0].cpu()
    for n, row in enumerate(spans):
        end = row[-1][1] if row else 0
        at = (mask[n].cpu() & (first[n] < end)).nonzero()[:, 0]
        if not len(at):
            units.append([])
            continue
        segment = torch.searchsorted(torch.tensor([s for s, _ in row]), first[n, at].contiguous(), right=True) - 1
        used, ids[n, at] = torch.unique(segment, return_inverse=True)
        starts = [row[k][0] for k in used.tolist()]
        units.append(list(zip([row[0][0], *starts[1:]], [*starts[1:], end], strict=True)))
    return ids.to(mask.device), units


def with_segments(rollouts: Rollouts, pattern: str, level: str = "segment") -> Rollouts:
    """The rollouts with a level of segments of the completion and their text as the field of the same name."""
    texts = [row[0] for row in rollouts.field("completion").values]
    spans = [split_spans(text, pattern) for text in texts]
    ids, units = segment_level(rollouts.field("offset").values, spans, rollouts.mask)
    known = rollouts.levels.get(level)
    if known is not None and not torch.equal(known, ids):
        raise ExpressionError(
            f"steps: the level `{level}` is there already with other units than the pattern {pattern!r} makes. "
            "Usual cause: two splitters in one expression; give one another level=."
        )
    pieces = [[text[a:b] for a, b in row] for text, row in zip(texts, units, strict=True)]
    return rollouts.with_level(level, ids).with_field(level, level, pieces)
