# SPDX-License-Identifier: Apache-2.0
"""Nash-MD: seek the policy that no other is preferred to, by playing against a mixture of oneself and the reference.

Human preferences need not come from a score: they can go in circles, and then "the best answer" depends on the opponent. What
is sought instead is the equilibrium of a game regularised towards a reference. Against itself a policy would circle for ever;
against the geometric mixture with the reference the last iterate converges.

    pi_t^mu        ~ pi_t^(1 - eta tau) mu^(eta tau)                the opponent
    pi_(t+1)(y)    ~ pi_t^mu(y) exp(eta P(y > pi_t^mu))             ~: normalised

    log pi  ``log_policy`` [A], log mu ``log_reference`` [A], nats
    P       ``preference`` [A, A], the probability that the first is preferred
    tau     strength of the regularisation, probability per nat
    eta     step; 2 / (tau (t + 2)) gives KL(pi* || pi_T) <= 8 / (tau^2 (T + 1))

Nash-MD-PG is the sampled version: y from pi, y' from the mixture pi^(1-b) mu^b taken token by token, and the policy gradient of
log pi(y) with the reward P(y > y') - 1/2 - tau log(pi(y) / mu(y)), of whole sequences. b = 0 is self-play, b = 1 the best
response to the reference. The game and its exploitability are in ``guerdon.tasks.preference_game``.

Munos et al. 2023, arXiv:2312.00886. Not to be confused with TRL's NashMDTrainer, which multiplies each token's log-ratio with
that token's log-probability only.
Departures: none known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.objectives import reinforce, sequence_mean
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context, Sampling
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Exact, Example, Metric, Reduction, System
from guerdon.tasks.preference_game import bradley_terry_scores, cyclic_game, equilibrium, exploitability, kl
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Learning, Recipe, Stage, Term
from guerdon.training.sources import Prompts


def mirror_descent(log_policy: Tensor, opponent: Tensor, preference: Tensor, eta: float) -> Tensor:
    """[A] log of pi(y) exp(eta P(y > opponent)), normalised; ``opponent`` [A] in logarithms.

    >>> even, sure = torch.zeros(2).log_softmax(-1), torch.tensor([[0.5, 1.0], [0.0, 0.5]])
    >>> [round(p, 4) for p in mirror_descent(even, even, sure, 2.0).exp().tolist()]  # 1 / (1 + exp(-1))
    [0.7311, 0.2689]
    """
    return (log_policy + eta * (preference @ opponent.exp())).log_softmax(-1)


def mixture(log_policy: Tensor, log_reference: Tensor, share: float) -> Tensor:
    """[..., A] log of pi^(1 - share) mu^share, normalised."""
    return ((1 - share) * log_policy + share * log_reference).log_softmax(-1)


def nash_md(log_policy: Tensor, log_reference: Tensor, preference: Tensor, *, eta: float, tau: float) -> Tensor:
    """[A] the next policy, in logarithms.

    >>> even, mu, sure = torch.zeros(2), torch.tensor([0.8, 0.2]).log(), torch.tensor([[0.5, 0.0], [1.0, 0.5]])
    >>> [round(p, 4) for p in nash_md(even.log_softmax(-1), mu, sure, eta=2.0, tau=0.5).exp().tolist()]  # eta tau = 1: from mu
    [0.5954, 0.4046]
    """
    opponent = mixture(log_policy, log_reference, min(eta * tau, 1.0))
    return mirror_descent(opponent, opponent, preference, eta)


def against_mixture(share: float, policy: TablePolicy, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
    """Samples of the policy, each with an answer of pi^(1 - share) mu^share to the same task as the field ``opponent``."""
    rollouts = policy.sample(contexts, sampling, seed)
    start = mixture(policy.table().log_softmax(-1), policy.reference.log_softmax(-1), share)
    size, history = policy.length, policy.states > 1
    other = TablePolicy(policy.tasks, policy.actions, length=size, history=history, start=start, dtype=policy.dtype)
    answers = other.sample([replace(c, index=-1 - c.index) for c in contexts], sampling, seed).action
    return rollouts.with_field("opponent", "task", answers)


@tensor_reward(needs=("log_prob", "ref_log_prob"))
def log_ratio(rollouts: Rollouts) -> Tensor:
    """log pi(y) / mu(y) of the whole sequence, nats."""
    assert rollouts.log_prob is not None  # declared as a need
    return torch.where(rollouts.mask, rollouts.log_prob - rollouts.field("ref_log_prob").values, 0).sum(1)


def nash_md_pg(
    contexts: Sequence[Context],
    preferred: Callable[[Rollouts], Tensor],
    *,
    steps: int,
    rows: int = 256,
    tau: float = 0.008,  # the paper's summarisation
    share: float = 0.125,  # b; among the paper's best
    lr: float = 1e-5,  # for a language model
) -> Stage:
    """``preferred``: rollouts -> [N] the probability that the row is preferred to its ``opponent``."""
    beats = tensor_reward(bounds=(-0.5, 0.5), needs=("opponent",), name="beats")(lambda rollouts: preferred(rollouts) - 0.5)
    return Stage(
        "train",
        steps,
        Prompts(contexts, 1, rows, Sampling(), partial(against_mixture, share)),
        [Term(1.0, reinforce, sequence_mean)],
        reward=beats - tau * log_ratio,
        credit=bind(group_relative, baseline="none"),
        lr=lr,
        updater={"optimiser": "sgd", "max_grad_norm": 10.0},
    )


# ---- the claims: a seed is a game

TAU, ITERATIONS = 0.1, 100
Step = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def iterates(seed: int, step: Step, scale: float, decay: bool = True) -> Iterator[tuple[int, Tensor]]:
    """(t, log-probabilities) after t iterations, from the reference on."""
    preference, mu = cyclic_game(seed)
    log_policy = mu
    for t in range(ITERATIONS):
        log_policy = step(log_policy, mu, preference, scale * 2 / TAU / (t + 2) if decay else scale)
        yield t + 1, log_policy


def _nash_md(log_policy: Tensor, mu: Tensor, preference: Tensor, eta: float) -> Tensor:
    return nash_md(log_policy, mu, preference, eta=eta, tau=TAU)


def _self_play(log_policy: Tensor, mu: Tensor, preference: Tensor, eta: float) -> Tensor:
    return mirror_descent(log_policy, log_policy, preference, eta)


def _regularised_self_play(log_policy: Tensor, mu: Tensor, preference: Tensor, eta: float) -> Tensor:
    return mirror_descent(mixture(log_policy, mu, min(eta * TAU, 1.0)), log_policy, preference, eta)


def _reward_model(log_policy: Tensor, mu: Tensor, preference: Tensor, eta: float) -> Tensor:
    return (mu + bradley_terry_scores(preference) / TAU).log_softmax(-1)


def arm(seed: int, start: Any = None, *, step: Step = _nash_md, scale: float = 1.0, decay: bool = True) -> Learning:
    """Iterates of ``step`` with steps of ``scale`` times the theorem's, or constant ones of ``scale``."""
    preference, mu = cyclic_game(seed)

    def lines() -> Iterator[dict[str, float]]:
        for t, log_policy in iterates(seed, step, scale, decay):
            yield {"step": t, "eval/exploitability": exploitability(log_policy, mu, preference, TAU).item()}

    return Learning("nash-md", lines, seed, ITERATIONS)


def sampled(seed: int, start: Any = None, *, share: float = 0.125, lr: float = 3.0, steps: int = 300) -> Recipe:
    """Nash-MD-PG on a table; ``share`` is b."""
    preference, mu = cyclic_game(seed)

    def preferred(rollouts: Rollouts) -> Tensor:
        return preference[rollouts.action[:, 0], rollouts.field("opponent").values[:, 0]]

    def measure(policy: TablePolicy, step: int) -> dict[str, float]:
        now = policy.probabilities()[0, 0, 0].log()
        lost = exploitability(now, mu, preference, TAU).item()
        return {"eval/exploitability": lost, "eval/worst_case": 0.5 - lost}

    stage = nash_md_pg([Context("game", "game")], preferred, steps=steps, tau=TAU, share=share, lr=lr)
    policy = partial(TablePolicy, ["game"], len(mu), start=mu, dtype=torch.float64)
    return Recipe("nash-md-pg", policy, [stage], Measured(25, measure), seed, steps, 0, best="eval/worst_case")


def last_iterate() -> dict[str, tuple[float, float]]:
    """For twenty games: by how much KL(pi* || pi_T) ever exceeds its bound; what is gained against pi*; its best answer."""
    excess, exploited, moved = [], [], []
    for seed in range(20):
        preference, mu = cyclic_game(seed)
        best = equilibrium(mu, preference, TAU)
        excess += [kl(best, x).item() - 8 / (TAU**2 * (t + 1)) for t, x in iterates(seed, _nash_md, 1.0)]
        exploited.append(exploitability(best, mu, preference, TAU).item())
        moved.append((mirror_descent(mu, best, preference, 1 / TAU) - best).abs().max().item())
    found = {"KL above its bound": max(0.0, *excess), "exploitability of the equilibrium": max(exploited)}
    return {k: (x, 0.0) for k, x in {**found, "its best answer to itself differs by": max(moved)}.items()}


def _example(dtype: torch.dtype) -> dict[str, Any]:
    preference, mu = (x.to(dtype) for x in cyclic_game(0))
    return {"log_policy": mu.flip(0), "log_reference": mu, "preference": preference, "eta": 0.5, "tau": 0.2}


def _without_regularisation() -> tuple[Tensor, Tensor]:
    given = _example(torch.float64)
    self_play = mirror_descent(given["log_policy"], given["log_policy"], given["preference"], 0.5)
    return nash_md(**{**given, "tau": 0.0}), self_play


SYSTEM = System(
    title="Nash-MD",
    paper="Munos 2023",
    arxiv="2312.00886",
    roles=("nash-objective", "policy-objective", "reward-model"),
    claims=(
        Comparison(
            statement="In games with a circle of preferences and a skewed reference, the last iterate of Nash-MD is less "
            "exploitable in the regularised game than that of mirror descent against itself.",
            arms={
                "nash-md": arm,
                "self-play": partial(arm, step=_self_play),
                "regularised-self-play": partial(arm, step=_regularised_self_play),
                "constant-step": partial(arm, scale=0.5, decay=False),
                "reward-model": partial(arm, step=_reward_model),
            },
            better="nash-md",
            than="self-play",
            metric=Metric("eval/exploitability", higher=False, along="step"),
            budget=f"{ITERATIONS} iterations",
            grid={"scale": (0.03, 0.1, 0.3, 1)},
            chosen={"nash-md": {"scale": 1}, "self-play": {"scale": 0.1}},
            differences=(
                "The tabular game instead of the summarisation experiment, as the spec says; each seed draws a game.",
                "Both arms take steps that decay as the theorem's, times a factor from the same grid; tau is 0.1 for both.",
            ),
        ),
        Comparison(
            statement="Nash-MD-PG against the mixture with b = 0.125 ends less exploitable than against the reference (b = 1).",
            arms={f"b={b:g}": partial(sampled, share=b) for b in (0.125, 1.0, 0.0, 0.5)},
            better="b=0.125",
            than="b=1",
            metric=Metric("eval/exploitability", higher=False),
            budget="76,800 samples",
            differences=(
                "A table policy on the same games, for a language model and summaries; the same learning rate for all b.",
            ),
        ),
        Exact(
            statement="KL(pi* || pi_T) stays below 8 / (tau^2 (T + 1)) for T up to 100, and nothing gains against pi*.",
            measure=last_iterate,
            tolerance=1e-10,
        ),
    ),
    built_from=("reinforce", "group_relative", "sequence_mean"),
    examples=(Example(nash_md, _example),),
    reductions=(Reduction("tau = 0 gives mirror descent against itself", _without_regularisation),),
)
