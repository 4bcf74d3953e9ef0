# SPDX-License-Identifier: Apache-2.0
"""Rewards and credit inside TRL's GRPO.

``as_reward_funcs`` makes the reward functions of any of TRL's online trainers: one per component, scored together. TRL adds them
up to one number per completion.

``CreditMixin`` goes further: advantages per token from guerdon's credit, in TRL's own loss.

    class Trainer(CreditMixin, GRPOTrainer): ...

    trainer = Trainer(model, reward=right + 0.2 * steps, credit=bind(group_relative, level="step"), args=GRPOConfig(...), ...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from guerdon.errors import InputError
from guerdon.integrations.token_rows import Generated
from guerdon.integrations.trl_probe import USUAL, check_hooks, check_trainer
from guerdon.integrations.trl_scoring import Column, Scored, Scorer
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import component, scores_of
from guerdon.training.crediting import Crediting
from guerdon.training.recipe import Batch, Stage, Term


def as_reward_funcs(
    reward: Reward | str,
    *,
    tokenizer: Any = None,
    max_failed: float = 0.1,
    weighted: bool = False,
    levels: Mapping[str, str] | None = None,
) -> tuple[list[Column], list[float]]:
    """(functions, weights) for TRL's ``reward_funcs`` and ``GRPOConfig(reward_weights=...)``: their weighted sum is the total.

    A function is named as its component and returns the sum over the completion, unweighted. Where the total is not ok every one
    returns None, since TRL would take a single None for a 0; such a completion has no gradient and is in no baseline. Its status
    and the reasons are columns of TRL's completions table (``reward_status``, ``reward_reason``); means and shares of each status
    are logged under the names they have in guerdon's own loop (``reward/NAME``, ``status/NAME/abstain``). More than
    ``max_failed`` of a term's units timing out or raising raises RewardFailure, which ends the run.

    ``tokenizer``   the trainer's; needed where the reward scores parts of an answer, such as its lines
    ``weighted``    the functions return weight times value and the weights are 1, for trainers of TRL that ignore weights
                    (AsyncGRPO). A component whose weight changes with the training step is weighted in any case
    ``levels``      {"paid": "turn"}: the level of columns (of the dataset, or from ``rollout_func``) that hold a sequence a row

    >>> from guerdon import checkers
    >>> functions, weights = as_reward_funcs(checkers.numeric() - 0.1 * checkers.length())
    >>> columns = {"prompts": ["2+2="] * 2, "completions": ["4", "so 4"], "completion_ids": [[5], [6, 5]], "answer": ["4"] * 2}
    >>> [(f.__name__, f(**columns), w) for f, w in zip(functions, weights)]
    [('numeric', [1.0, 1.0], 1.0), ('length', [1.0, 4.0], -0.1)]
    """
    scorer = Scorer(reward, tokenizer=tokenizer, max_failed=max_failed, weighted=weighted, levels=levels)
    return list(scorer.columns), scorer.weights


class CreditMixin:
    """Before ``GRPOTrainer``: advantages [B, T] by guerdon's credit instead of one per completion by TRL's.

    ``reward``       an expression, or its text; takes the place of ``reward_funcs`` and ``reward_weights``
    ``credit``       (reward [N, T], ...) -> advantage [N, T], as in a guerdon Stage: ``bind(group_relative, level="step")``.
                     What else it asks for by name: mask, group, episode, terminated, truncated, action, any level, and
                     what ``ingredients`` adds
    ``combine``, ``transforms``   as in a Stage: components credited apart, and what is done to the advantage afterwards
    ``max_failed``, ``levels``    as in ``as_reward_funcs``

    Everything else is TRL's. Tokens whose advantage is NaN, since a unit that isn't ok would enter it or there was nothing to
    compare with, leave the loss: they are taken out of its mask, so neither the policy term nor the divergence counts them.
    Logged besides what ``as_reward_funcs`` logs: ``dropped``, ``no_signal``, ``share/NAME``; in the completions table
    ``advantage`` is the mean over the completion's tokens.

    The trainer's own loss is tried on a made-up batch when the trainer is made; a TRL whose insides differ is refused there.
    """

    def __init__(
        self,
        model: Any,
        *,
        reward: Reward | str,
        credit: Callable[..., Tensor],
        combine: Callable[..., Tensor] | None = None,
        transforms: Sequence[Callable[..., Tensor]] = (),
        max_failed: float = 0.1,
        levels: Mapping[str, str] | None = None,
        **trainer: Any,
    ) -> None:
        if trainer.get("reward_funcs") is not None or getattr(trainer.get("args"), "reward_weights", None) is not None:
            raise InputError("CreditMixin: expected all of the reward in `reward`, got `reward_funcs` or `reward_weights` too.")
        parent = cast(Any, super())
        check_hooks(parent)
        self._scorer = Scorer(reward, max_failed=max_failed, levels=levels)
        self._stage = Stage(
            name="trl",
            steps=0,
            source=cast(Any, None),
            terms=[Term(1.0, _loss_of_trl, None)],
            reward=self._scorer.reward,
            credit=credit,
            combine=combine,
            transforms=transforms,
        )
        parent.__init__(model, reward_funcs=list(self._scorer.columns), **trainer)
        self._begin()

    def _begin(self) -> None:
        this = cast(Any, self)
        check_trainer(this)
        if len(this.reward_funcs) != len(self._scorer.columns):
            raise InputError(
                "CreditMixin: an environment's get_reward would not be in `reward`. Let it return its reward by a tool or from "
                "rollout_func, as a column that `reward` reads."
            )
        if this.accelerator.num_processes > 1 and self._scorer.reward.relation in ("group", "batch"):
            raise InputError(
                f"CreditMixin: `{self._scorer.reward}` compares rows with one another, and each of the "
                f"{this.accelerator.num_processes} processes scores its own only. Compare in `credit`, which sees them all."
            )
        this.reward_weights = torch.tensor(self._scorer.weights, dtype=torch.float32)
        processing = this.processing_class
        self._scorer.tokenizer = getattr(processing, "tokenizer", processing)

    def ingredients(self, rollouts: Rollouts, out: Mapping[str, Any]) -> dict[str, Tensor]:
        """More that ``credit`` may ask for by name, each [N, T]; ``out`` is TRL's batch. Override it to bring values, say."""
        return {}

    def _generate(self, prompts: list[Any]) -> Any:
        made = cast(Any, super())._generate(prompts)
        this = cast(Any, self)
        if not (isinstance(made, tuple) and len(made) == 8 and len(made[1]) == len(prompts)):
            raise InputError(f"CreditMixin: expected eight results of _generate, the second the completions' ids. {USUAL}.")
        self._scorer.generated = Generated(made[2], made[0], frozenset(this.eos_token_ids), self._group_size())
        return made

    def _group_size(self) -> int:
        this = cast(Any, self)
        return this.num_generations if this.model.training else this.num_generations_eval

    def _generate_and_score_completions(self, inputs: list[Any]) -> dict[str, Any]:
        out = cast(Any, super())._generate_and_score_completions(inputs)
        this, scored = cast(Any, self), self._scorer.last
        shape = tuple(out["completion_mask"].shape)
        if scored is None or len(scored.rollouts) != shape[0] or out["advantages"].shape != shape[:1]:
            raise InputError(f"CreditMixin: expected advantages [{shape[0]}] for the batch that was scored. {USUAL}.")
        with torch.no_grad():
            advantage, usable, metrics = self._credited(scored, out)
        own = slice(this.accelerator.process_index * shape[0], (this.accelerator.process_index + 1) * shape[0])
        self._log_credit(advantage, usable, metrics)
        mask = out["completion_mask"]
        wide = (0, shape[1] - advantage.shape[1])  # TRL may pad further, other processes' rows may be longer
        out["advantages"] = pad(advantage[own].to(out["advantages"].dtype), wide)
        out["tool_mask"] = out.get("tool_mask", torch.ones_like(mask)) * pad(usable[own].to(mask.dtype), wide)
        out["num_items_in_batch"] = this.accelerator.gather((mask * out["tool_mask"]).sum()).sum()
        return out

    def _credited(self, scored: Scored, out: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Of all processes' rows: advantage [N, T], which of it can be used [N, T], what was measured."""
        rollouts, scores = scored.rollouts, scored.scores
        extra = self.ingredients(rollouts, out)
        levels = {name: self._of_all(x, -1) for name, x in scores.levels.items()}
        action, mask = self._of_all(rollouts.action, 0), self._of_all(rollouts.mask.long(), 0) > 0
        every = Rollouts(
            action=action,
            mask=mask,
            task=[""] * len(action),
            terminated=self._of_all(rollouts.terminated.long(), 0) > 0,
            truncated=self._of_all(rollouts.truncated.long(), 0) > 0,
            length=(levels["step"] >= 0).sum(1),
            levels=levels,
            group=torch.arange(len(action), device=action.device) // self._group_size(),
        )
        for name, x in extra.items():
            every = every.with_field(name, "step", self._of_all(x, 0))
        parts = []
        for name, c in scores.components.items():
            on_steps = self._of_all(c.steps(scores.levels[c.level], scores.mask), 0)
            on_steps = torch.where(levels["step"] >= 0, on_steps, torch.nan)
            parts.append(component(name, "step", on_steps, weight=c.weight, spread="copy"))
        nobody = cast(Any, SimpleNamespace(outputs=frozenset()))
        ingredients, metrics = Crediting(self._stage, Batch(every), scores_of(every, parts), nobody, scored.step).assign()
        return ingredients["advantage"], ingredients["mask"], metrics

    def _of_all(self, x: Tensor, padding: float) -> Tensor:
        """Every process's rows, as wide as the widest."""
        accelerator = cast(Any, self).accelerator
        x = x.to(accelerator.device)
        if accelerator.num_processes == 1:
            return x
        return accelerator.gather(accelerator.pad_across_processes(x, dim=1, pad_index=padding))

    def _log_credit(self, advantage: Tensor, usable: Tensor, metrics: Mapping[str, float]) -> None:
        this = cast(Any, self)
        mode = "train" if this.model.training else "eval"
        for name, value in metrics.items():
            this._metrics[mode][name].append(value)
        logged = this._logs["advantages"]
        for _ in range(min(len(logged), len(advantage))):
            logged.pop()
        logged.extend((advantage.sum(1) / usable.sum(1)).tolist())  # 0 / 0 is NaN: no token of it is trained on


def _loss_of_trl() -> None:
    """Stands where a Stage has its loss; TRL computes that."""
