# SPDX-License-Identifier: Apache-2.0
"""One's own model, data and reward: what ``guerdon train`` runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, kl_penalty, token_mean
from guerdon.protocols import Sampling
from guerdon.rewards import Reward
from guerdon.rewards.evaluating import additive
from guerdon.rewards.parse import parse
from guerdon.tasks import load_tasks
from guerdon.training.recipe import Evaluation, Recipe, Stage, Term
from guerdon.training.sources import Prompts, contexts_of, split

if TYPE_CHECKING:
    from guerdon.policies.language import LanguagePolicy


def recipe(
    model: str,
    data: str,
    reward: str,
    success: str = "",
    steps: int = 100,
    prompts: int = 16,
    samples: int = 8,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    stop: str | tuple[str, ...] = (),
    lr: float = 1e-5,
    kl: float = 0.0,
    lora: int = 0,
    budget: float = 10.0,
    held_out: int = 64,
    evaluate_every: int = 10,
    checkpoint_every: int = 25,
    micro_rows: int = 64,
    updates: int = 1,
    seed: int = 0,
) -> Recipe:
    """Group-relative policy gradient on a Hugging Face model, a JSONL file or reasoning-gym task, and a reward expression.

    success: reward expression that held-out evaluation reports (default: the reward's first term that scores whole answers).
    kl: weight of the penalty on leaving the start (needs memory for a copy, or lora). lora: rank of a LoRA adapter, 0 = train all.
    budget: seconds a reward's function may take for one completion. held_out: tasks kept back for evaluation.
    prompts x samples completions are drawn per step; updates: optimiser steps made of each such batch.
    """
    composed = parse(reward).with_budget(budget)
    judged = parse(success).with_budget(budget) if success else _first_whole(composed)
    learned, kept_back = split(load_tasks(data), held_out, seed)
    contexts, held = contexts_of(learned), contexts_of(kept_back)
    missing = sorted((composed.needs | judged.needs) - {"prompt", "completion", "messages"} - _given(contexts[0].fields))
    if missing:
        raise InputError(
            f"train: the reward reads {', '.join(f'`{m}`' for m in missing)}, which {data} does not have; its fields are "
            f"prompt, {', '.join(contexts[0].fields) or 'no others'}. Usual cause: a column of another name."
        )
    sampling = Sampling(max_new_tokens, temperature, stop=(stop,) if isinstance(stop, str) else tuple(stop))
    wants_reference = kl > 0 or "ref_log_prob" in composed.needs
    reference = "none" if not wants_reference else "adapter" if lora else "copy"
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    if kl > 0:
        terms.append(Term(kl, kl_penalty, token_mean))
    stage = Stage(
        "train",
        steps,
        Prompts(contexts, prompts, samples, sampling),
        terms,
        reward=composed,
        credit=partial(group_relative, level="step") if composed.level != "episode" else partial(group_relative, scale="std", eps=1e-4),
        lr=lr,
        micro_rows=micro_rows,
        updates=updates,
    )
    return Recipe(
        "train",
        partial(_load, model, lora, reference),
        [stage],
        Evaluation(held, judged, evaluate_every, samples=4, sampling=sampling),
        seed=seed,
        checkpoint_every=checkpoint_every,
        about={
            "title": f"{Path(model).name} on {data}",
            "reward": str(composed),
            "reward_tree": composed.tree(),
            "success": str(judged),
            "tasks": {"training": len(contexts), "held_out": len(held)},
        },
    )


def _given(fields: Mapping[str, Any]) -> set[str]:
    return {*fields, "ref_log_prob", "log_prob", "offset", "index", "step_count"}


def _load(model: str, lora: int, reference: str) -> LanguagePolicy:
    from guerdon.policies.language import LanguagePolicy

    adapter = {"r": lora, "lora_alpha": 2 * lora, "target_modules": "all-linear"} if lora else None
    return LanguagePolicy.load(model, lora=adapter, reference=reference)


def _first_whole(reward: Reward) -> Reward:
    for term in additive(reward, 0):
        if term.level == "episode" and term.relation == "self":
            return term
    raise InputError(
        f"train: none of the reward's terms scores whole answers by themselves, so it is not clear what success is, in `{reward}`. "
        "Give success='EXPR', e.g. success='numeric'."
    )
