# SPDX-License-Identifier: Apache-2.0
"""Rollouts of what another library's language model wrote: its lists of prompts, completions and token ids as rows here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.policies.text import Decoder, Span
from guerdon.rollouts import Field, Rollouts, as_messages, completion_text
from guerdon.tasks.task import task_key


@dataclass(frozen=True)
class Generated:
    """What a trainer knows of its completions and does not tell its reward functions.

    taken       for each row, whether the policy wrote each token (False: a tool or an environment); None: it wrote all
    prompt_ids  for each row, the tokens that its first one follows; None: unknown
    ends        ids of the tokens that end a completion by itself
    group_size  this many neighbouring rows are compared with one another; None: those with equal prompts
    """

    taken: Sequence[Sequence[int]] | None = None
    prompt_ids: Sequence[Sequence[int]] | None = None
    ends: Collection[int] = ()
    group_size: int | None = None


def token_rollouts(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    ids: Sequence[Sequence[int]],
    columns: Mapping[str, Sequence[Any]],
    *,
    tokenizer: Any = None,
    generated: Generated | None = None,
    levels: Mapping[str, str] | None = None,
) -> Rollouts:
    """One row per completion, one step per token.

    ``completions`` are strings or messages; ``columns`` have one value a row, or one sequence a row where ``levels`` names the
    level of a column. With a ``tokenizer``, ``completion`` is the text of the tokens themselves (messages of several turns are
    joined by a line end) and ``offset`` says which characters each of them wrote; without, it is the completion's own text.

    >>> rows = token_rollouts(["2+2="], ["4"], [[7, 1]], {"answer": ["4"]}, generated=Generated(ends=[1]))
    >>> rows, rows.terminated.tolist()
    (Rollouts(1 rows x 2 steps, 2 taken; fields prompt:task, completion:episode, answer:task; levels +[]), [[False, True]])
    """
    generated = generated or Generated()
    n = len(ids)
    for name, rows in {"prompts": prompts, "completions": completions, **columns}.items():
        if len(rows) != n:
            raise InputError(f"token_rollouts: `{name}` should have one entry for each of {n} completions, got {len(rows)}.")
    taken = generated.taken if generated.taken is not None else [[1] * len(row) for row in ids]
    length = torch.tensor([len(row) for row in ids], dtype=torch.long)
    mask = _padded([[bool(x) for x in row] for row in taken], False, length)
    turn = _turns(mask)
    fields = {"prompt": Field("task", list(prompts)), **_texts(prompts, completions, ids, taken, turn, tokenizer)}
    if generated.prompt_ids is not None:
        fields["context_ids"] = Field("task", [list(row) for row in generated.prompt_ids])
    level_of = dict(levels or {})
    fields |= {name: _field(name, level_of.get(name, "task"), rows, length) for name, rows in columns.items()}
    last = torch.arange(mask.shape[1]) == length[:, None] - 1
    ended = torch.tensor([bool(row) and row[-1] in generated.ends for row in ids], dtype=torch.bool)
    return Rollouts(
        action=_padded([list(row) for row in ids], 0, length),
        mask=mask,
        task=[task_key(prompt) for prompt in prompts],
        terminated=last & ended[:, None],
        truncated=last & ~ended[:, None],
        length=length,
        levels={"turn": torch.where(torch.arange(mask.shape[1]) < length[:, None], turn, -1)},
        group=_groups(prompts, generated.group_size),
        fields=fields,
    )


def _padded(rows: Sequence[Sequence[Any]], pad: Any, length: Tensor) -> Tensor:
    wide = max(int(length.max()) if len(length) else 0, 1)
    if [len(row) for row in rows] != length.tolist():
        raise InputError("token_rollouts: expected one entry for each token in every row of what was generated, got others.")
    return torch.tensor([[*row, *[pad] * (wide - len(row))] for row in rows])


def _turns(mask: Tensor) -> Tensor:
    """[N, T] how many times the policy has begun to write before or at each step, less one; a reply belongs to its turn."""
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return ((mask & ~before).long().cumsum(1) - 1).clamp(min=0)


def _groups(prompts: Sequence[Any], size: int | None) -> Tensor:
    if size is not None:
        return torch.arange(len(prompts)) // size
    seen: dict[str, int] = {}
    return torch.tensor([seen.setdefault(repr(p), len(seen)) for p in prompts], dtype=torch.long)


def _texts(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    ids: Sequence[Sequence[int]],
    taken: Sequence[Sequence[int]],
    turn: Tensor,
    tokenizer: Any,
) -> dict[str, Field]:
    """completion; messages where there are any; offset where there is a tokenizer."""
    texts, fields = [completion_text(c) for c in completions], dict[str, Field]()
    if tokenizer is not None:
        decoder = Decoder(tokenizer)
        read = [_spans(decoder, *row) for row in zip(ids, taken, turn.tolist(), strict=True)]
        texts = [text for text, _ in read]
        wide = turn.shape[1]
        offsets = [spans + [(len(text), len(text))] * (wide - len(spans)) for text, spans in read]
        fields["offset"] = Field("step", torch.tensor(offsets, dtype=torch.long).reshape(len(ids), wide, 2))
    if any(not isinstance(p, str) for p in [*prompts, *completions]):
        whole = [[as_messages(p) + as_messages(c, "assistant")] for p, c in zip(prompts, completions, strict=True)]
        fields["messages"] = Field("episode", whole)
    return {"completion": Field("episode", [[text] for text in texts]), **fields}


def _spans(decoder: Decoder, ids: Sequence[int], taken: Sequence[int], turn: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the policy's tokens, a line for each turn, and what each token wrote; others' tokens wrote nothing."""
    text, spans = "", list[Span]()
    for k in dict.fromkeys(turn[: len(ids)]):
        here = [t for t in range(len(ids)) if turn[t] == k]
        mine = [t for t in here if taken[t]]
        start = len(text) + (1 if k else 0)
        said, wrote = decoder.spans([ids[t] for t in mine])
        text = f"{text}\n{said}" if k else said
        at = dict(zip(mine, wrote, strict=True))
        spans += [(start + at[t][0], start + at[t][1]) if t in at else (len(text), len(text)) for t in here]
    return text, spans


def _field(name: str, level: str, rows: Sequence[Any], length: Tensor) -> Field:
    if level != "step":
        return Field(level, list(rows))
    return Field("step", _padded([list(row) for row in rows], 0, length))
