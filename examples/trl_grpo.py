# SPDX-License-Identifier: Apache-2.0
"""A reward of two parts, credited token by token, in TRL's own GRPOTrainer; a tiny model from scratch, half a minute on a laptop.

    python examples/trl_grpo.py

The task: add a row of digits one at a time. The model first imitates somebody who gets half of the steps wrong.
"""

import tempfile

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from guerdon.credit import group_relative
from guerdon.integrations.trl import CreditMixin
from guerdon.policies.language import LanguagePolicy
from guerdon.rewards import reward
from guerdon.tasks.running_digits import TOKENS, demonstrations, make_tasks, step_is_right, success
from guerdon.training.binding import bind

LENGTH = 4


@reward(bounds=(0, 1))
def chain_right(completion: str, prompt: str) -> bool:
    return success(completion, prompt)


# A value for each step of the chain: it goes to the token that wrote the step's total.
@reward(level="segment", split=r"(?=\+)", bounds=(0, 1))
def step_right(index: int, completion: str, prompt: str) -> bool:
    return step_is_right(completion, prompt)[index]


class Trainer(CreditMixin, GRPOTrainer):
    """TRL's trainer, with advantages per token by guerdon's credit."""


def imitated(updates: int) -> LanguagePolicy:
    policy = LanguagePolicy.tiny(TOKENS, width=64, layers=2, heads=4, max_length=32)
    shown = policy.encode(*zip(*demonstrations(1000, LENGTH, seed=0), strict=True))
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=3e-3)
    for rows in torch.randint(len(shown), (updates, 128), generator=torch.Generator().manual_seed(0)):
        batch = shown.rows(rows)
        loss = -policy.evaluate(batch, frozenset({"log_prob"}))["log_prob"].sum() / batch.mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def main(updates: int = 300, steps: int = 60) -> list[float]:
    """The share of chains that were right in every training step."""
    torch.set_num_threads(1)  # a model this small is slower on more
    policy = imitated(updates)
    settings = {"per_device_train_batch_size": 128, "num_generations": 16, "max_completion_length": 2 * LENGTH + 1}
    quiet = {"report_to": [], "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "bf16": False}
    trainer = Trainer(
        policy.model,
        reward=chain_right + step_right,
        credit=bind(group_relative, level="step"),  # what was still earned from this token on, compared with the group's
        args=GRPOConfig(tempfile.mkdtemp(), max_steps=steps, learning_rate=2e-3, beta=0.0, **settings, **quiet),
        train_dataset=Dataset.from_list([{"prompt": task.prompt} for task in make_tasks(500, LENGTH, seed=0)]),
        processing_class=policy.tokenizer,
    )
    trainer.train()
    return [line["reward/chain_right"] for line in trainer.state.log_history if "reward/chain_right" in line]


if __name__ == "__main__":
    right = main()
    tenth = max(len(right) // 10, 1)
    print(f"right at first: {sum(right[:tenth]) / tenth:.0%}, at last: {sum(right[-tenth:]) / tenth:.0%}")  # noqa: T201
