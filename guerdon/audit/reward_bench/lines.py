# SPDX-License-Identifier: Apache-2.0
"""Preferences from JSONL: for a prompt, answers that are good and answers that are worse.

    prompt       text or messages. May be missing where ``chosen`` and ``rejected`` are whole conversations that begin alike
    chosen       one good answer, or a list of them that are equally good
    rejected     one worse answer, or a list
    subset       the part of the benchmark it belongs to; may be missing
    id           "ref:7" and "tied:7" in the subset Ties mark the two lines of one question (RewardBench 2)
    paraphrases  other prompts that ask for the same: the preference should stay
    contrasts    prompts that ask for the opposite: the preference should turn round
    other keys are fields for the reward to read by name: answer, source, ...

An answer is text, or a list of messages. The columns of RewardBench 2 (num_correct, total_completions, ...) are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from guerdon.errors import InputError
from guerdon.tasks import read_jsonl

OWN = {"prompt", "chosen", "rejected", "subset", "id", "paraphrases", "contrasts"}
OWN |= {"num_correct", "num_incorrect", "total_completions"}  # RewardBench 2 says in them how long the lists are

CAUSE = "Usual cause: a file of another kind; each line has a prompt, a chosen answer and a rejected one."


@dataclass(frozen=True)
class Line:
    """One prompt with answers: the first ``len(chosen)`` of ``answers`` are the good ones."""

    prompt: Any
    chosen: tuple[Any, ...]
    rejected: tuple[Any, ...]
    subset: str = ""
    id: str = ""
    paraphrases: tuple[Any, ...] = ()
    contrasts: tuple[Any, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> tuple[Any, ...]:
        return self.chosen + self.rejected

    @property
    def tie(self) -> tuple[str, str] | None:
        """("ref" or "tied", question) of a line of the subset Ties."""
        kind, _, question = self.id.partition(":")
        return (kind, question) if self.subset.lower() == "ties" and kind in ("ref", "tied") and question else None


def read_lines(path: str | PathLike[str]) -> list[Line]:
    """The preferences of a JSONL file."""
    return [line_of(row, f"{path}, row {i}") for i, row in enumerate(read_jsonl(path, ("chosen", "rejected")), start=1)]


def line_of(row: Mapping[str, Any], whose: str = "line") -> Line:
    """One preference from its keys.

    >>> line = line_of({"prompt": "2+2=", "chosen": "4", "rejected": ["5", "22"], "answer": "4"})
    >>> line.answers, dict(line.fields)
    (('4', '5', '22'), {'answer': '4'})
    """
    chosen, rejected = (answers_of(row[name], name, whose) for name in ("chosen", "rejected"))
    prompt = row.get("prompt")
    if prompt is None:
        prompt, chosen, rejected = without_prompt(chosen, rejected, whose)
    return Line(
        prompt,
        chosen,
        rejected,
        str(row.get("subset") or ""),
        str(row.get("id") if row.get("id") is not None else ""),
        prompts_of(row.get("paraphrases"), "paraphrases", whose),
        prompts_of(row.get("contrasts"), "contrasts", whose),
        {k: v for k, v in row.items() if k not in OWN},
    )


def answers_of(said: Any, name: str, whose: str) -> tuple[Any, ...]:
    """One answer or several as a tuple; a list of messages is one."""
    several = list(said) if isinstance(said, list) and not _is_messages(said) else [said]
    if not several or not all(isinstance(x, str) or _is_messages(x) for x in several):
        raise InputError(f"{whose}: `{name}` should be an answer (text or messages) or a list of them, got {said!r:.80}. {CAUSE}")
    return tuple(several)


def prompts_of(said: Any, name: str, whose: str) -> tuple[Any, ...]:
    return () if said is None or said == [] else answers_of(said, name, whose)


Answers = tuple[Any, ...]


def without_prompt(chosen: Answers, rejected: Answers, whose: str) -> tuple[Any, Answers, Answers]:
    """The prompt that whole conversations share, and their last messages."""
    every = chosen + rejected
    if not all(_is_messages(x) and x[-1]["role"] == "assistant" for x in every) or any(x[:-1] != every[0][:-1] for x in every):
        raise InputError(
            f"{whose}: expected a `prompt`, or conversations that differ in their last message, which is the assistant's; "
            f"got neither. {CAUSE}"
        )
    return every[0][:-1], tuple([x[-1]] for x in chosen), tuple([x[-1]] for x in rejected)


def _is_messages(said: Any) -> bool:
    return isinstance(said, list) and bool(said) and all(isinstance(m, dict) and "role" in m and "content" in m for m in said)
