# SPDX-License-Identifier: Apache-2.0
"""Fact sentences: a long answer that can go wrong in three ways, each with its own segments.

    prompt      B2:            a subject and a topic
    completion  a4f1.c0a4.h3h3.

A sentence is two clauses and a full stop: five tokens. A clause is a relation and its value for the subject. Three hidden rules
judge an answer, as the error types of long-form question answering do:

    clause     new: its relation was not in the answer before
    sentence   factual: both of its values are those of a hidden table
    answer     complete: which share of the topic's five relations has been told with the right value

The demonstrator knows the form, draws relations at random and errs on a stated share of the values, each fact having one fixed
wrong value. What is true cannot be inferred from other facts, so prompts are not held out.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from guerdon.tasks.task import Task, task_key

SUBJECTS, RELATIONS, VALUES, TOPICS = "ABCD", "abcdefghij", "012345", "0123"
TOKENS = (*SUBJECTS, *RELATIONS, *VALUES, ".", ":")
CLAUSE, SENTENCE = r"(?=[a-j])", r"\."
"""Where an answer is cut into its clauses and sentences; the full stop ends a clause too."""

MOST = 6
"""Sentences that an answer may have."""

_CLAUSE, _SENTENCE = re.compile(r"([a-j])([0-5])\.?"), re.compile(r"([a-j])([0-5])([a-j])([0-5])\.")


def make_tasks() -> list[Task]:
    """Every subject with every topic."""
    return [Task(task_key(p), p) for p in (f"{s}{t}:" for s in SUBJECTS for t in TOPICS)]


@cache
def facts() -> dict[tuple[str, str], tuple[str, str]]:
    """(subject, relation) -> (the true value, the demonstrator's wrong one)."""
    random = Random("facts")
    return {(s, r): tuple(random.sample(VALUES, 2)) for s in SUBJECTS for r in RELATIONS}  # type: ignore[misc]  # two of them


@cache
def required(topic: str) -> frozenset[str]:
    """The five relations that an answer on ``topic`` should tell."""
    return frozenset(Random(f"topic {topic}").sample(RELATIONS, 5))


def demonstrations(n: int, seed: int, *, errors: float = 0.4) -> list[tuple[str, str]]:
    """``n`` (prompt, completion) of three to six sentences with ``errors`` share of wrong values.

    >>> demonstrations(1, seed=0)
    [('D0:', 'j1i1.c3d0.e4i1.j1g2.d5c3.e4c3.')]
    """
    random, tasks, shown = Random(f"demonstrations {seed}"), make_tasks(), []
    for _ in range(n):
        prompt = str(random.choice(tasks).prompt)
        clauses = [
            relation + facts()[prompt[0], relation][random.random() < errors]
            for relation in random.choices(RELATIONS, k=2 * random.randint(3, MOST))
        ]
        shown.append((prompt, "".join(f"{a}{b}." for a, b in zip(clauses[::2], clauses[1::2], strict=True))))
    return shown


def new_clauses(completion: str) -> list[bool]:
    """Whether each clause is in form and its relation was not told before.

    >>> new_clauses("a4f1.c0a3.h3h"), new_clauses("")
    ([True, True, True, False, True, False], [])
    """
    told: set[str] = set()
    new = []
    for piece in _cut(CLAUSE, completion):
        clause = _CLAUSE.fullmatch(piece)
        new.append(clause is not None and clause[1] not in told)
        told |= {clause[1]} if clause else set()
    return new


def factual_sentences(completion: str, prompt: str) -> list[bool]:
    """Whether each sentence is in form and both of its values are true of the prompt's subject."""
    found = [_SENTENCE.fullmatch(piece) for piece in _cut(r"(?<=\.)", completion)]
    return [s is not None and all(_is_true(prompt, s[i], s[i + 1]) for i in (1, 3)) for s in found]


def completeness(completion: str, prompt: str) -> float:
    """Share of the topic's relations that a clause tells with the right value."""
    clauses = [c for piece in _cut(CLAUSE, completion) if (c := _CLAUSE.fullmatch(piece))]
    told = {c[1] for c in clauses if _is_true(prompt, c[1], c[2])}
    return len(told & required(prompt[1])) / 5


def satisfaction(completion: str, prompt: str) -> float:
    """Mean of the shares of new clauses, factual sentences and required facts; 0 for an empty answer."""
    new, factual = new_clauses(completion), factual_sentences(completion, prompt)
    if not new:
        return 0.0
    return (sum(new) / len(new) + sum(factual) / len(factual) + completeness(completion, prompt)) / 3


def _is_true(prompt: str, relation: str, value: str) -> bool:
    return facts()[prompt[0], relation][0] == value


def _cut(pattern: str, text: str) -> list[str]:
    return [piece for piece in re.split(pattern, text) if piece]
