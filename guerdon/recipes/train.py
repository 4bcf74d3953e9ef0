# SPDX-License-Identifier: Apache-2.0
"""One's own model, data and reward: what ``guerdon train`` runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.audit.watches import watched
from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, kl_penalty, token_mean
from guerdon.protocols import Sampling
from guerdon.rewards import Reward
from guerdon.rewards.evaluating import additive
from guerdon.rewards.oracle import oracle
from guerdon.rewards.parse import parse
from guerdon.tasks import Task, load_tasks, tasks_from_jsonl
from guerdon.training.binding import bind
from guerdon.training.evaluation import Evaluation
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts, contexts_of, split

if TYPE_CHECKING:
    from guerdon.policies.language import LanguagePolicy


def recipe(
    model: str,
    data: str,
    reward: str,
    success: str = "",
    steps: int = 200,
    prompts: int = 64,
    samples: int = 8,
    updates: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    stop: str | Sequence[str] = (),
    lr: float | None = None,
    warmup: int = 20,
    kl: float = 0.0,
    lora: int = 0,
    dtype: str = "float32",
    products: str = "float32",
    budget: float = 10.0,
    held_out: int | None = None,
    evaluate_every: int = 10,
    checkpoint_every: int = 25,
    micro_rows: int = 64,
    watch: bool = False,
    gold: str = "",
    watch_stop: str = "",
    seed: int = 0,
) -> Recipe:
    """Group-relative policy gradient on a Hugging Face model, a JSONL file or reasoning-gym task, and a reward expression.

    model: directory or name of a Hugging Face causal language model with its tokenizer
    data: FILE.jsonl or reasoning_gym:NAME?size=500&seed=1
    reward: reward expression; path.py:name for your own functions
    success: reward expression that held-out evaluation reports (default: the reward's first term that scores whole answers)
    steps: optimiser batches; each draws prompts x samples completions
    prompts: tasks a step; more tasks with fewer samples each make a steadier gradient than the reverse
    samples: completions of each task, which are compared with one another
    updates: optimiser steps made of each batch
    max_new_tokens: where a completion is cut
    temperature: of sampling, in training and in the sampled half of evaluation
    stop: text (or a list of texts) that ends a completion
    lr: learning rate (default: by the model's width, 5e-6 at 1024 and 3e-4 at 64; ten times that with lora)
    warmup: steps over which the learning rate rises; Adam's first steps are mostly noise
    kl: weight of the penalty on leaving the start; takes the memory of a second model unless there is lora
    lora: rank of a LoRA adapter on all linear layers; 0 trains all weights
    dtype: of the weights while training; in bfloat16 small learning rates are lost to rounding
    products: bfloat16 rounds the factors of a processor's matrix products, which takes less time (see docs/performance.md)
    budget: seconds a reward's function may take for one completion
    held_out: tasks kept back for evaluation (default: a fifth, at most 64)
    evaluate_every: steps between evaluations
    checkpoint_every: steps between checkpoints
    micro_rows: completions in one forward pass; fewer take less memory
    watch: look at what the reward doesn't read, and say when it goes wrong (see docs/watching.md)
    gold: reward expression of what is meant, watched and never trained on; brings watch, and takes
        the memory of a second model unless there is lora
    watch_stop: kind of alarm that ends the run: quantity, gold, dominance or any; brings watch
    seed: of the order of tasks, the split and the sampling
    """
    _at_least(1, steps=steps, prompts=prompts, updates=updates, max_new_tokens=max_new_tokens, micro_rows=micro_rows)
    _at_least(1, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every)
    _at_least(2, samples=samples)
    _at_least(0, lora=lora, kl=kl, warmup=warmup)
    if not temperature > 0:
        raise InputError(
            f"train: `temperature` should be above 0, got {temperature}: greedy completions of a task are all the same."
        )
    if dtype not in DTYPES:
        raise InputError(f"train: `dtype` should be one of {', '.join(DTYPES)}, got {dtype!r}.")
    if products not in DTYPES[:2]:
        raise InputError(f"train: `products` should be one of {', '.join(DTYPES[:2])}, got {products!r}.")
    composed = parse(reward).with_budget(budget)
    judged = parse(success).with_budget(budget) if success else first_whole(composed)
    if gold:
        composed = composed + oracle(parse(gold).with_budget(budget)).watch()
    tasks = _tasks(data, sorted((composed.needs | judged.needs) - FROM_POLICY))
    learned, kept_back = split(tasks, min(64, len(tasks) // 5) or 1 if held_out is None else held_out, seed)
    contexts, held = contexts_of(learned), contexts_of(kept_back)
    sampling = Sampling(max_new_tokens, temperature, stop=(stop,) if isinstance(stop, str) else tuple(stop))
    wants_reference = kl > 0 or bool(gold) or "ref_log_prob" in composed.needs
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    if kl > 0:
        terms.append(Term(kl, kl_penalty, token_mean))
    base = _base(model)
    rate = default_lr(_width(base), lora > 0 or base != model) if lr is None else lr
    stage = Stage(
        "train",
        steps,
        Prompts(contexts, prompts, samples, sampling, ready=composed.begin if composed.begins else None),
        terms,
        reward=composed,
        credit=bind(group_relative, scale="std", eps=1e-4) if composed.level == "episode" else bind(group_relative, level="step"),
        lr=lambda step: rate * min(1.0, (step + 1) / (warmup + 1)),
        micro_rows=micro_rows,
        updates=updates,
    )
    made = Recipe(
        "train",
        partial(
            _load,
            model,
            lora,
            dtype,
            products,
            "none" if not wants_reference else "adapter" if lora else "copy",
            [held[0].prompt, contexts[0].prompt],
        ),
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
            "learning_rate": rate,
            "total_steps": steps,
        },
    )
    return watched(made, stop=watch_stop) if watch or gold or watch_stop else made


DTYPES = ("float32", "bfloat16", "float64")

FROM_POLICY = {"completion", "messages", "offset", "log_prob", "ref_log_prob", "context_ids"}
"""What a reward may read that comes with the completions, not from the data."""


def _at_least(low: int, **values: float) -> None:
    for name, value in values.items():
        if value < low:
            raise InputError(f"train: `{name}` should be at least {low}, got {value}.")


def default_lr(width: int, lora: bool) -> float:
    """5e-6 (1024 / width)^1.5, ten times that for an adapter: a rule of thumb through what small and large models take.

    >>> round(default_lr(64, False), 6), default_lr(1024, True)
    (0.00032, 5e-05)
    """
    return 5e-6 * (1024 / width) ** 1.5 * (10 if lora else 1)


def first_whole(reward: Reward) -> Reward:
    """The first term that counts for the reward and scores each whole answer by itself."""
    for term, weight in additive(reward, 0).items():
        if term.level == "episode" and term.relation == "self" and weight > 0:
            return term
    raise InputError(
        f"train: none of the terms of `{reward}` scores whole answers by itself, so it is not clear what success is. "
        "Give success='EXPR', e.g. success=numeric."
    )


def _tasks(data: str, needs: Sequence[str]) -> list[Task]:
    """Tasks with every field that the rewards read."""
    if data.endswith(".jsonl"):
        return tasks_from_jsonl(data, needs)
    tasks = load_tasks(data)
    missing = [n for n in needs if n != "prompt" and n not in tasks[0].fields]
    if missing:
        raise InputError(
            f"train: the reward reads {', '.join(f'`{m}`' for m in missing)}, which {data} does not have; its fields are "
            f"prompt, {', '.join(tasks[0].fields)}. Usual cause: a field of another name."
        )
    return tasks


def _base(model: str) -> str:
    """What an adapter's directory adapts; else the model itself."""
    config = Path(model) / "adapter_config.json"
    return json.loads(config.read_text())["base_model_name_or_path"] if config.is_file() else model


def _width(model: str) -> int:
    """The model's hidden size, read without its weights."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model).get_text_config().hidden_size
    except (OSError, ValueError) as e:
        raise InputError(
            f"train: expected a causal language model at {model!r}, got: {e} Usual cause: a misspelt path (a name that is no "
            "directory is looked up on the model hub), or the directory of a run instead of the model in it."
        ) from e


def _load(model: str, lora: int, dtype: str, products: str, reference: str, prompts: Sequence[Any]) -> LanguagePolicy:
    """The policy, after a look at whether it can read ``prompts``: before a run starts rather than in it."""
    import torch

    from guerdon.policies.language import LanguagePolicy

    adapter = {"r": lora, "lora_alpha": 2 * lora, "target_modules": "all-linear"} if lora else None
    policy = LanguagePolicy.load(model, lora=adapter, reference=reference, dtype=getattr(torch, dtype), products=products)
    policy.contexts(prompts)
    return policy
