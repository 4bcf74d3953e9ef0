# SPDX-License-Identifier: Apache-2.0
"""A reward expression as a reward manager of verl, and as its ``compute_score``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guerdon.integrations.verl_payload import check_reward, score_one
from guerdon.rewards import Reward, parse
from guerdon.rollouts import Rollouts

Scored = dict[str, Any]


def as_compute_score(reward: Reward | str) -> Callable[..., Scored]:
    """verl's ``compute_score(data_source, solution_str, ground_truth, extra_info)`` for its own reward managers.

    ``ground_truth`` is read as the fields ``ground_truth`` and ``answer``, the keys of ``extra_info`` as fields of those names.
    The result's ``score`` is NaN where the total is not ok: verl has no other word for it, and 0 would be a verdict.

    >>> compute_score = as_compute_score("numeric + 0.5*format('<b>.*</b>')")
    >>> compute_score(data_source="sums", solution_str="<b>4</b>", ground_truth="4", extra_info={})["score"]
    1.5
    """
    expression = parse(reward) if isinstance(reward, str) else reward
    check_reward(expression)

    def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> Scored:
        extra = dict(extra_info or {})
        fields = {**extra, **_fields(data_source, ground_truth, extra)}
        prompt = fields.pop("prompt", "")
        granular = "characters" if any(n.level not in ("turn", "episode") for n in expression.nodes()) else "text"
        rollouts = Rollouts.from_text([prompt], [solution_str], steps=granular, **{k: [v] for k, v in fields.items()})
        scores = expression.score(rollouts)
        parts = {k: c.steps(scores.levels[c.level], scores.mask).sum().item() for k, c in scores.components.items()}
        why = "; ".join(dict.fromkeys(f"{k}: {text}" for k, c in scores.trace.items() for text in c.reasons.values()))
        return {"score": scores.reward().sum().item(), **parts, "reward_reason": why}

    return compute_score


def manager_class(base: type, reward: Reward) -> type:
    """A subclass of verl's RewardManagerBase that scores with ``reward``."""

    class GuerdonRewardManager(base):
        def __init__(self, config: Any, tokenizer: Any, compute_score: Any, *_: Any, **__: Any) -> None:
            super().__init__(config, tokenizer, compute_score)

        async def run_single(self, data: Any) -> Scored:
            one = data[-1:][0]  # of an agent loop's outputs verl scores the last
            return await self.loop.run_in_executor(None, lambda: scored(reward, one, self.tokenizer))

    return GuerdonRewardManager


def scored(reward: Reward, one: Any, tokenizer: Any) -> Scored:
    """The result for one item of verl's DataProto."""
    response = one.batch["responses"]
    length = int(one.batch["attention_mask"][-response.shape[-1] :].sum())
    given = dict(one.non_tensor_batch)
    truth = (given.get("reward_model") or {}).get("ground_truth")
    extra = {**(given.get("extra_info") or {}), **(given.get("tool_extra_fields") or {})}
    fields = {**extra, **given, **_fields(given.get("data_source", ""), truth, extra)}
    prompt = fields.pop("raw_prompt", fields.pop("prompt", ""))
    prompt = prompt if isinstance(prompt, str) else list(prompt)
    ends = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    return score_one(reward, prompt, response[:length].tolist(), fields, tokenizer, ends)


def _fields(data_source: Any, ground_truth: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {"data_source": data_source, "ground_truth": ground_truth, "answer": ground_truth, "extra_info": dict(extra)}
