# SPDX-License-Identifier: Apache-2.0
"""Look-ups: follow a chain of hidden facts to its end, then answer. A retrieval agent's task in a dozen tokens.

    prompt       3b2            three hops from b2
    agent, tool  ?b2  c4        what follows b2? c4
    agent, tool  ?c4  d5
    agent, tool  ?d5  e0
    agent        =e0            the answer

There are levels a to e of six things each. A thing's fact is a thing of the next level, one of three that everybody knows could
follow it (x2 is followed by y2, y3 or y4, counted around); which one is hidden and differs from task to task. All the other
things can be looked up as well, and tell nothing. A look-up of what has no fact, and anything that is not a message, is told `!`.

So what is known about the answer grows with each right look-up: after hop k of H it is one of at most 2 (H - k) + 1 things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from guerdon.protocols import Context
from guerdon.sampling.conversation import Step
from guerdon.tasks.task import Task

LEVELS, SIZE, BRANCH = "abcde", 6, 3
THINGS = tuple(f"{level}{i}" for level in LEVELS for i in range(SIZE))
TOKENS = (*THINGS, "?", "=", "!", "1", "2", "3", "4")
MESSAGE_TOKENS = 2
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
"""Chat template: the messages as they are, one after another."""

_MESSAGE = re.compile(r"([?=])([a-e][0-5])")


def make_tasks(count: int, hops: Sequence[int], seed: int) -> list[Task]:
    """`count` tasks whose numbers of hops go around `hops`. Fields: `facts`, `path` (what is to be looked up), `answer`, `hops`.

    >>> task = make_tasks(1, [3], seed=1)[0]
    >>> task.prompt[0]["content"], task.fields["path"], task.fields["answer"]
    ('3a2', ['a2', 'b4', 'c5'], 'd0')
    """
    random = Random(f"look-ups {seed}")
    return [_task(random, hops[i % len(hops)], f"{seed}-{i}") for i in range(count)]


def _task(random: Random, hops: int, key: str) -> Task:
    facts = {x: f"{LEVELS[LEVELS.index(x[0]) + 1]}{(int(x[1]) + random.randrange(BRANCH)) % SIZE}" for x in THINGS[:-SIZE]}
    path = [f"{random.choice(LEVELS[: len(LEVELS) - hops])}{random.randrange(SIZE)}"]
    for _ in range(hops):
        path.append(facts[path[-1]])
    prompt = [{"role": "user", "content": f"{hops}{path[0]}"}]
    return Task(key, prompt, {"facts": facts, "path": path[:-1], "answer": path[-1], "hops": hops})


class Tool:
    """The other side of the conversation: looks facts up, ends the conversation at an answer."""

    def reset(self, task: Context) -> Sequence[Mapping[str, Any]]:
        self.facts = task.fields["facts"]
        return task.prompt

    def step(self, message: Mapping[str, Any]) -> Step:
        said = _MESSAGE.fullmatch(message["content"])
        if said and said[1] == "=":
            return Step(terminated=True)
        return Step([{"role": "tool", "content": self.facts.get(said[2], "!") if said else "!"}])


def answer_in(completion: str) -> str | None:
    """What the agent's last message answers; None if it is no answer.

    >>> answer_in("?b2\\n=c4"), answer_in("?b2\\n?c4")
    ('c4', None)
    """
    said = _MESSAGE.fullmatch(completion.rpartition("\n")[2])
    return said[2] if said and said[1] == "=" else None


def looked_up(completion: str) -> list[str]:
    """The things that were looked up, in order.

    >>> looked_up("?b2\\n?c4\\n=d5")
    ['b2', 'c4']
    """
    said = (_MESSAGE.fullmatch(line) for line in completion.split("\n"))
    return [m[2] for m in said if m and m[1] == "?"]


def figures(completions: Sequence[str], tasks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """success, also of each number of hops; useful, the share of look-ups that followed the chain; lookups, how many there were.

    `tasks`: the fields of each completion's task.

    >>> chain = {"path": ["a2", "b4"], "answer": "c5", "hops": 2}
    >>> figures(["?a2\\n?a1\\n?b4\\n=c5", "=c5", "?a0\\n=c0"], [chain] * 3)
    {'success': 0.6666666666666666, 'success/2': 0.6666666666666666, 'useful': 0.5, 'lookups': 1.3333333333333333}
    """
    right = [answer_in(c) == t["answer"] for c, t in zip(completions, tasks, strict=True)]
    asked = [looked_up(c) for c in completions]
    by_hops = {h: [r for r, t in zip(right, tasks, strict=True) if t["hops"] == h] for h in sorted({t["hops"] for t in tasks})}
    return {
        "success": _mean(right),
        **{f"success/{h}": _mean(found) for h, found in by_hops.items()},
        "useful": sum(followed(a, t["path"]) for a, t in zip(asked, tasks, strict=True)) / max(sum(map(len, asked)), 1),
        "lookups": _mean([len(a) for a in asked]),
    }


def followed(asked: Sequence[str], path: Sequence[str]) -> int:
    """How many of the look-ups `asked` took the next step of `path`.

    >>> followed(["b4", "a2", "b4", "b4"], ["a2", "b4", "c5"])
    2
    """
    k = 0
    for thing in asked:
        k += k < len(path) and thing == path[k]
    return k


def _mean(xs: Sequence[float]) -> float:
    return sum(xs) / len(xs)


def demonstrations(count: int, hops: Sequence[int], seed: int, *, skill: float) -> list[tuple[list[dict[str, str]], str]]:
    """(prompt, whole conversation) by an agent that follows the chain at each look-up with probability `skill`.

    Otherwise it looks anything up. It answers after 0 to hops + 1 look-ups, all equally likely, and is told the answer then:
    so a model learns what the answer may be after any history, and not when to answer.

    >>> demonstrations(2, [2], seed=3, skill=0.5)[1][1]
    '?a0b1?d4e5=c1'
    """
    random = Random(f"demonstrations of look-ups {seed}")
    return [(t.prompt, _shown(random, t, skill)) for t in make_tasks(count, hops, seed)]  # type: ignore[misc]


def _shown(random: Random, task: Task, skill: float) -> str:
    facts, left, text = dict(task.fields["facts"]), list(task.fields["path"]), ""  # type: ignore[call-overload]
    for _ in range(random.randrange(len(left) + 2)):
        thing = left[0] if left and random.random() < skill else random.choice(THINGS)
        left = left[1:] if left and thing == left[0] else left
        text += f"?{thing}{facts.get(thing, '!')}"
    return f"{text}={task.fields['answer']}"
