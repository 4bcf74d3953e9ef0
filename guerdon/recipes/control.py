# SPDX-License-Identifier: Apache-2.0
"""A Gymnasium environment and a reward: what ``guerdon train --env`` runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guerdon.audit.watches import watched
from guerdon.credit import gae, whiten
from guerdon.credit.scaled import scaled_gae
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, entropy_bonus, token_mean, value_loss
from guerdon.policies.normaliser import ObservationStatistics, ReturnScale
from guerdon.rewards import Reward
from guerdon.rewards.oracle import oracle
from guerdon.rewards.parse import parse
from guerdon.sampling.environments import Environments, episodes, make_environment
from guerdon.sampling.vector import Singles
from guerdon.training.binding import bind
from guerdon.training.evaluation import EVALUATION_SEED, Measured
from guerdon.training.loop import episode_mean
from guerdon.training.process import use_threads
from guerdon.training.recipe import Recipe, Stage, Term

if TYPE_CHECKING:
    from guerdon.policies.actor_critic import ActorCritic


def recipe(
    env: str,
    reward: str = "environment",
    success: str = "",
    steps: int = 100,
    environments: int = 8,
    horizon: int = 256,
    minibatch: int = 256,
    rounds: int = 4,
    lr: float = 3e-4,
    gamma: float = 0.99,
    lam: float = 0.95,
    clip: float = 0.2,
    entropy: float = 0.0,
    value: float = 1.0,
    max_grad_norm: float = 0.5,
    hidden: int = 64,
    log_std: float = 0.0,
    normalise: bool = True,
    threads: int = 1,
    budget: float = 0.0,
    evaluate_every: int = 10,
    episodes: int = 10,
    checkpoint_every: int = 25,
    save_rollouts_every: int = 0,
    watch: bool = False,
    gold: str = "",
    watch_stop: str = "",
    seed: int = 0,
) -> Recipe:
    """Proximal policy optimisation on a Gymnasium environment with a reward expression.

    env: id of the environment, or PACKAGE:ID for one that a package registers
    reward: reward expression over the steps; environment is what the environment itself gives, and numbers of a step's info are
        read by field('NAME')
    success: reward expression with one value an episode, above 1/2 a success, for evaluation to report
    steps: batches; each takes environments x horizon steps
    environments: how many run side by side, each a row of the batch
    horizon: steps of each in a batch
    minibatch: steps in one optimiser step
    rounds: passes over a batch
    lr: learning rate
    gamma: discount of a step
    lam: 0 trusts the value function, 1 the rewards
    clip: how far a probability may move from where it was when the action was drawn
    entropy: weight of the entropy bonus
    value: weight of half the squared error of the value
    max_grad_norm: longer gradients are shortened to it
    hidden: width of the two hidden layers of actor and critic
    log_std: where the logarithm of a continuous action's standard deviation starts
    normalise: observations to mean 0 and deviation 1, rewards by the deviation of the discounted return
    threads: of the processor, for the networks; more help wide ones only, and slow small ones down where others compute too
    budget: seconds that a function of your own may take for one unit, in processes apart; 0: none, in this process
    evaluate_every: batches between evaluations
    episodes: greedy episodes of an evaluation
    checkpoint_every: batches between checkpoints
    save_rollouts_every: batches between those that are stored with their scores; 0: none is
    watch: look at what the reward doesn't read, and say when it goes wrong (see docs/watching.md)
    gold: reward expression of what is meant, watched and never trained on; brings watch
    watch_stop: kind of alarm that ends the run: quantity, gold, dominance or any; brings watch
    seed: of everything that is drawn
    """
    low = {"steps": steps, "environments": environments, "horizon": horizon, "minibatch": minibatch, "rounds": rounds}
    low |= {"hidden": hidden, "episodes": episodes, "evaluate_every": evaluate_every, "checkpoint_every": checkpoint_every}
    low["threads"] = threads
    for name, count in low.items():
        if count < 1:
            raise InputError(f"control: `{name}` should be at least 1, got {count}.")
    for name, share in {"gamma": gamma, "lam": lam}.items():
        if not 0 <= share <= 1:
            raise InputError(f"control: `{name}` should lie between 0 and 1, got {share}.")
    composed, judged = _parsed(reward, budget), _parsed(success, budget) if success else None
    if gold:
        composed = composed + oracle(_parsed(gold, budget)).watch()
    if judged is not None and judged.level != "episode":
        raise InputError(
            f"control: `success` should have one value an episode, {judged} has one per {judged.level}. "
            "Usual cause: a step's reward; .pool('sum', 'episode') or .pool('last', 'episode') makes one of them."
        )
    info = _info(env, [r for r in (composed, judged) if r is not None])
    scale = ReturnScale(gamma)
    credit = bind(scaled_gae, scale=scale, gamma=gamma, lam=lam) if normalise else bind(gae, "next_value", gamma=gamma, lam=lam)
    terms = [
        Term(1.0, bind(clipped_surrogate, clip_low=clip, clip_high=clip), token_mean),
        Term(value, value_loss, token_mean),
        *([Term(entropy, entropy_bonus, token_mean)] if entropy else []),
    ]
    stage = Stage(
        "train",
        steps,
        Environments(env, environments, horizon, info),
        terms,
        reward=composed,
        credit=credit,
        transforms=[whiten],
        evolving=[scale, ObservationStatistics()] if normalise else [],
        by="step",
        shuffle=True,
        updates=max(environments * horizon // minibatch, 1),
        rounds=rounds,
        lr=lr,
        updater={"optimiser": "adam", "eps": 1e-5, "max_grad_norm": max_grad_norm},
    )
    made = Recipe(
        "control",
        partial(_policy, env, (hidden, hidden), log_std, normalise, threads),
        [stage],
        Measured(evaluate_every, _Episodes(env, episodes, composed, judged, info)),
        seed=seed,
        checkpoint_every=checkpoint_every,
        save_rollouts_every=save_rollouts_every,
        best="eval/return" if judged is None else "eval/success",
        about={
            "title": f"{env}, {reward}",
            "reward": str(composed),
            "reward_tree": composed.tree(),
            "learning_rate": lr,
            "total_steps": steps,
            **({"success": str(judged)} if judged is not None else {}),
        },
    )
    return watched(made, stop=watch_stop) if watch or gold or watch_stop else made


STEP_FIELDS = {"observation", "next_observation", "environment_reward", "action", "terminated", "truncated", "log_prob"}
"""What rewards may read of any environment's steps."""


def _parsed(text: str, budget: float) -> Reward:
    return parse(text).with_budget(budget) if budget else parse(text)


def _policy(env: str, hidden: tuple[int, ...], log_std: float, normalise: bool, threads: int) -> ActorCritic:
    from guerdon.policies.actor_critic import ActorCritic

    use_threads(threads)
    made = make_environment(env)
    spaces = made.observation_space, made.action_space
    made.close()
    return ActorCritic.of(*spaces, hidden=hidden, log_std=log_std, normalise=normalise)


def _info(env: str, rewards: list[Reward]) -> tuple[str, ...]:
    """What the rewards read of the steps' info; a look at one step, before the run starts rather than in it."""
    made = make_environment(env)
    made.reset(seed=0)
    made.action_space.seed(0)
    *_, info = made.step(made.action_space.sample())
    made.close()
    wanted = sorted(frozenset[str]().union(*(r.needs for r in rewards)) - STEP_FIELDS)
    numbers = sorted(k for k, x in info.items() if np.ndim(x) == 0 and isinstance(x, int | float | np.number | np.bool_))
    if missing := [n for n in wanted if n not in numbers]:
        raise InputError(
            f"control: the reward reads {', '.join(f'`{m}`' for m in missing)}, which {env} does not have; a step has "
            f"{', '.join(sorted(STEP_FIELDS))} and, in its info, {', '.join(numbers) or 'no numbers'}. "
            "Usual cause: a checker of text, or an argument of a function that is named otherwise."
        )
    return tuple(wanted)


@dataclass
class _Episodes:
    """Greedy episodes from the same starts every time; ``eval/return`` is the environment's own, whatever is trained on."""

    env: str
    count: int
    reward: Reward
    success: Reward | None
    info: tuple[str, ...]
    singles: list[Singles] = field(default_factory=list)

    def __call__(self, policy: Any, step: int) -> dict[str, float]:
        if not self.singles:
            self.singles.append(Singles(partial(make_environment, self.env), self.count, once=True, info=self.info))
        with torch.no_grad():
            rollouts = episodes(policy, self.singles[0], self.count, seed=EVALUATION_SEED, greedy=True)
        returns = (rollouts.field("environment_reward").values * rollouts.mask).sum(1)
        out = {
            "eval/return": returns.mean().item(),
            "eval/reward": episode_mean(self.reward.score(rollouts, step=step).total),
            "eval/length": rollouts.length.double().mean().item(),
        }
        if self.success is not None:
            judged = self.success.score(rollouts, step=step).total
            known = judged.values[judged.ok]
            out["eval/success"] = (known > 0.5).double().mean().item() if len(known) else float("nan")
        return out
