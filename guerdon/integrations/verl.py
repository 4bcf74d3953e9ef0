# SPDX-License-Identifier: Apache-2.0
"""Rewards and credit inside verl: a reward manager, an advantage estimator, a trainer and a policy loss, under one name.

    # mine.py, on the path of every node; VERL_USE_EXTERNAL_MODULES=mine
    from guerdon.integrations.verl import register

    register("mine", reward=right + 0.2 * steps, credit=bind(group_relative, level="step"))

    python -m verl.trainer.main_ppo reward.reward_manager.name=mine trainer.v1.trainer_mode=mine algorithm.adv_estimator=mine ...

`python -m guerdon.integrations.verl` says which of the hooks this relies on the installed verl has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from guerdon.errors import GuerdonError, InputError
from guerdon.integrations.verl_hooks import report
from guerdon.integrations.verl_manager import as_compute_score, manager_class
from guerdon.integrations.verl_payload import check_reward
from guerdon.integrations.verl_trainer import assigned, trainer_class, trainer_credits
from guerdon.rewards import Reward, parse
from guerdon.rollouts import Rollouts
from guerdon.scores import component, scores_of
from guerdon.training.binding import needs_of
from guerdon.training.recipe import Stage, Term

__all__ = ["advantage_estimator", "as_compute_score", "as_policy_loss", "register"]


def register(
    name: str,
    *,
    reward: Reward | str,
    credit: Callable[..., Tensor],
    combine: Callable[..., Tensor] | None = None,
    transforms: Sequence[Callable[..., Tensor]] = (),
    objective: Callable[..., Any] | None = None,
    trainer: str = "sync",
    max_failed: float = 0.1,
) -> None:
    """Make ``name`` a reward manager, an advantage estimator, a trainer and, with ``objective``, a policy loss of verl.

    ``credit``, ``combine``, ``transforms``, ``max_failed``: as in a Stage. ``objective``: (log_prob, old_log_prob, advantage,
    mask) -> Loss, such as ``bind(clipped_surrogate, clip_high=0.28)``. ``trainer``: which of verl's v1 trainers is extended.
    """
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    from verl.experimental.reward_loop.reward_manager.registry import register as register_manager
    from verl.trainer.ppo.core_algos import register_adv_est, register_policy_loss
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    expression = parse(reward) if isinstance(reward, str) else reward
    check_reward(expression)
    stage = _stage(name, expression, credit, combine, transforms, max_failed)
    register_manager(name)(manager_class(RewardManagerBase, expression))
    register_adv_est(name)(advantage_estimator(credit, combine=combine, transforms=transforms))
    register_trainer(name)(trainer_class(get_trainer_cls(trainer), stage))
    if objective is not None:
        register_policy_loss(name)(as_policy_loss(objective))


def advantage_estimator(
    credit: Callable[..., Tensor],
    *,
    combine: Callable[..., Tensor] | None = None,
    transforms: Sequence[Callable[..., Tensor]] = (),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An advantage estimator of verl: (token_level_rewards, response_mask, index, ...) -> (advantages, returns), all [N, T].

    It sees what verl shows one: the total per token and the group (``index``), no components, no levels but step, turn and
    episode, no values. Tokens whose advantage is NaN get 0, so no policy gradient; their return stays NaN, which a critic would
    not survive: with one, use the trainer.

    >>> from guerdon.credit import group_relative
    >>> reward, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, torch.nan]]), torch.ones(3, 2, dtype=torch.long)
    >>> estimate = advantage_estimator(group_relative)
    >>> estimate(token_level_rewards=reward, response_mask=mask, index=["a", "a", "a"])[0].tolist()
    [[0.5, 0.5], [-0.5, -0.5], [0.0, 0.0]]
    """
    stage = _stage("verl", None, credit, None, transforms, 1.0)

    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, config: Any = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        mask = response_mask.bool()
        if trainer_credits():
            return torch.zeros_like(token_level_rewards), torch.zeros_like(token_level_rewards)
        if combine is not None:
            raise InputError(
                "verl: an estimator sees no components to combine; set trainer.v1.trainer_mode to the registered name."
            )
        rows = [str(i) for i in (range(len(mask)) if index is None else index)]
        rollouts = Rollouts(action=torch.zeros_like(mask, dtype=torch.long), mask=mask, task=rows)
        scores = scores_of(rollouts, [component("total", "step", on_taken(token_level_rewards, mask), spread="copy")])
        found, _ = assigned(stage, rollouts, scores, 0)
        returns = torch.where(mask & ~found["mask"], torch.nan, found["return_"])
        return found["advantage"], returns

    return estimate


def on_taken(reward: Tensor, mask: Tensor) -> Tensor:
    """What lies on tokens of others moved to the policy's last one, [N, T]: verl's number is on the last token, whose it may be.

    >>> on_taken(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.0, 1.5, 0.0]]
    """
    at = torch.arange(mask.shape[1], device=mask.device)
    last = (torch.where(mask, at, -1).amax(1, keepdim=True) == at) & mask
    others = torch.where(mask, 0, reward).sum(1, keepdim=True)
    return torch.where(mask, reward, 0) + torch.where(last, others, 0)


def as_policy_loss(objective: Callable[..., Any]) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """A policy loss of verl from an objective of guerdon; verl's ``loss_agg_mode`` reduces it, by counts of its whole batch.

    Metrics are the objective's own, as ``actor/NAME``.
    """
    offered = {"log_prob", "old_log_prob", "advantage", "mask"}
    missing = needs_of(objective) - offered
    if missing:
        raise InputError(
            f"as_policy_loss: verl tells a policy loss {', '.join(sorted(offered))}; this needs {', '.join(missing)}."
        )

    def policy_loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        from verl.trainer.ppo.core_algos import agg_loss

        mask = response_mask.bool()
        given = {"log_prob": log_prob, "old_log_prob": old_log_prob, "advantage": advantages, "mask": mask}
        loss = objective(**{k: given[k] for k in needs_of(objective)})
        value = loss.value if rollout_is_weights is None else loss.value * rollout_is_weights
        reduced = agg_loss(loss_mat=value, loss_mask=loss.mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info)
        return reduced, {f"actor/{k}": float(total) / max(float(count), 1.0) for k, (total, count) in loss.metrics.items()}

    return policy_loss


def _stage(
    name: str,
    reward: Reward | None,
    credit: Callable[..., Tensor],
    combine: Callable[..., Tensor] | None,
    transforms: Sequence[Callable[..., Tensor]],
    max_failed: float,
) -> Stage:
    terms = [Term(1.0, _loss_of_verl, None)]
    scorer = reward if reward is not None else Reward(name="total")
    return Stage(
        name=name,
        steps=0,
        source=cast(Any, None),
        terms=terms,
        reward=scorer,
        credit=credit,
        combine=combine,
        transforms=transforms,
        max_failed=max_failed,
    )


def _loss_of_verl() -> None:
    """Stands where a Stage has its loss; verl computes that."""


if __name__ == "__main__":
    try:
        sys.stdout.write(report())
    except GuerdonError as error:
        sys.exit(str(error))
