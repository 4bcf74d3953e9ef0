# SPDX-License-Identifier: Apache-2.0
"""Brief sums: add four digits modulo 5, at once or step by step. Three things one may want of an answer, two of which disagree.

    prompt       2431:
    at once      #0                  short, and right as often as a guess
    with steps   +4=1+3=4+1=0#0      each step repeats a digit and writes the new total; the first digit is the first total

A box `#` holds the answer. It is correct if the last token is the right box, clear if it is boxed and shows two steps or more.
Tokens are the pieces of `TOKENS`: an answer with all its steps has seven, one at once a single one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from random import Random

from guerdon.protocols import Context, Policy, Sampling
from guerdon.rewards import reward
from guerdon.rollouts import Rollouts
from guerdon.tasks.task import Task

BASE, DIGITS, MOST = 5, 4, 11
TOKENS = (*(f"{mark}{d}" for mark in ("", "+", "=", "#") for d in range(BASE)), ":")

_STEP = re.compile(r"\+\d=\d")


def make_tasks(held_out: bool) -> list[Task]:
    """All prompts of the training part (500) or of the held-out part (125), in a mixed order. Field: `answer`.

    >>> task = make_tasks(held_out=True)[0]
    >>> task.prompt, task.fields["answer"], len(make_tasks(held_out=False))
    ('2441:', '#1', 500)
    """
    prompts = ["".join(map(str, digits)) + ":" for digits in product(range(BASE), repeat=DIGITS)]
    Random("brief sums").shuffle(prompts)
    return [Task(p, p, {"answer": f"#{_total(p)}"}) for p in (prompts[:125] if held_out else prompts[125:])]


def _total(prompt: str) -> int:
    return sum(map(int, prompt[:-1])) % BASE


@reward(bounds=(0, 1))
def correct(completion: str, answer: str) -> bool:
    """The last token is the right box.

    >>> correct("+4=1#0", "#0"), correct("#0+4=1", "#0")
    (True, False)
    """
    return completion.endswith(answer)


@reward(bounds=(0, 1))
def clear(completion: str) -> bool:
    """Boxed, and two steps shown.

    >>> clear("+4=1+3=4#4"), clear("+4=1#1"), clear("+4=1+3=4")
    (True, False, False)
    """
    return "#" in completion and len(_STEP.findall(completion)) >= 2


def demonstrations(count: int, seed: int, *, steps_right: float, guess_right: float) -> list[tuple[str, str]]:
    """(prompt, completion) on training prompts: half at once, half with steps; each guess and step is right that often.

    >>> demonstrations(2, 0, steps_right=0.8, guess_right=0.4)
    [('1410:', '#1'), ('3334:', '+3=1+3=4+4=3#3')]
    """
    random = Random(f"demonstrations of brief sums {seed}")
    prompts = [str(t.prompt) for t in make_tasks(held_out=False)]
    return [(p, _shown(random, p, steps_right, guess_right)) for p in random.choices(prompts, k=count)]


def _shown(random: Random, prompt: str, steps_right: float, guess_right: float) -> str:
    def written(right: int, often: float) -> int:
        return right if random.random() < often else random.randrange(BASE)

    if random.random() < 0.5:
        return f"#{written(_total(prompt), guess_right)}"
    total, text = int(prompt[0]), ""
    for digit in prompt[1:-1]:
        total = written((total + int(digit)) % BASE, steps_right)
        text += f"+{digit}={total}"
    return f"{text}#{total}"


def objectives(policy: Policy, tasks: Sequence[Context]) -> dict[str, float]:
    """Means in [0, 1], higher is better, of one sample a task: correct; brief, 1 - length / MOST in tokens; clear."""
    return figures(policy.sample(tasks, Sampling(max_new_tokens=MOST), 0))


def figures(rollouts: Rollouts) -> dict[str, float]:
    """
    >>> figures(Rollouts.from_text(["2431:"] * 2, ["#0", "+4=1+3=4+1=0#0"], answer=["#0", "#1"]))
    {'correct': 0.5, 'brief': 0.9090909090909091, 'clear': 0.5}
    """
    return {
        "correct": correct.score(rollouts).total.mean(),
        "brief": 1 - rollouts.mask.sum(1).double().mean().item() / MOST,
        "clear": clear.score(rollouts).total.mean(),
    }
