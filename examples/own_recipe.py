# SPDX-License-Identifier: Apache-2.0
"""A recipe of one's own: a small model first copies careless sums, then a reward makes it careful.

    guerdon show examples/own_recipe.py
    guerdon run examples/own_recipe.py --out runs/own steps=60

A recipe file needs one function that returns a Recipe; the function's arguments are what key=value sets.
"""

import random

from guerdon.credit import group_relative
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean
from guerdon.policies.language import LanguagePolicy
from guerdon.protocols import Context, Sampling
from guerdon.rewards import reward
from guerdon.training.evaluation import Evaluation
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts

TASKS = [(a, b) for a in range(10) for b in range(10)]


# A reward is a function of a completion and of whatever fields of the task it names: here `answer`.
@reward(bounds=(0, 1))
def right(completion: str, answer: str) -> bool:
    return completion == answer


# Rewards are added and weighed like numbers. What is only watched is plotted and enters nothing.
@reward(bounds=(0, 1))
def two_digits(completion: str) -> bool:
    return len(completion) == 2 and completion.isdigit()


def recipe(seed: int = 0, warm: int = 200, steps: int = 60, lr: float = 1e-3) -> Recipe:
    """Sums of two digits: a careless teacher first, then a reward.

    seed: of the model, the demonstrations and the sampling
    warm: updates that imitate a teacher who is wrong half the time
    steps: updates that learn from the reward
    lr: learning rate of those
    """
    # Half the demonstrations are wrong, so that the start knows the form and is right about half the time.
    draw = random.Random(seed)
    shown = [(f"{a}+{b}=", f"{a + b if draw.random() < 0.5 else draw.randrange(19):02d}") for _ in range(40) for a, b in TASKS]
    tasks = [Context(f"{a}+{b}", f"{a}+{b}=", {"answer": f"{a + b:02d}"}) for a, b in TASKS]
    draw.shuffle(tasks)
    learned, held_out = tasks[:80], tasks[80:]
    sampling = Sampling(max_new_tokens=4)
    return Recipe(
        "own",
        # What to train. LanguagePolicy.load("path/to/model") takes a Hugging Face model instead.
        policy=lambda: LanguagePolicy.tiny([*"0123456789+="], width=64, layers=2, max_length=16, seed=seed),
        stages=[
            Stage("warm", warm, Demonstrations(shown, 64), [Term(1.0, negative_log_likelihood, token_mean)], lr=3e-3),
            Stage(
                "train",
                steps,
                Prompts(learned, 16, 8, sampling),  # 16 tasks a step, 8 completions of each to compare with one another
                [Term(1.0, clipped_surrogate, token_mean)],
                reward=right + 0.1 * two_digits,
                credit=group_relative,
                lr=lr,
            ),
        ],
        evaluation=Evaluation(held_out, right, every=20, sampling=sampling),
        seed=seed,
        about={"task": "Write the sum of two digits."},
    )
