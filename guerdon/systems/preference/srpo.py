# SPDX-License-Identifier: Apache-2.0
"""SRPO: learn, from offline preferences, a reviser that beats any draft and a generator that leaves it little to improve.

    min_pi max_q E_{y1 ~ pi, y2 ~ q(.|y1)} [P(y2 > y1)] - beta KL(q || ref(.|y1)) + beta KL(pi || ref)

Its solution does not depend on who wrote the answers that were compared, whether or not the preferences come from a score. With
g(b|a) = log q(b|a) / ref(b|a), e(a) = log pi(a) / ref(a), it is q* ~ ref(b|a) exp(P(b > a) / beta), normalised by Z(a), and
pi* ~ ref / Z, and satisfies for every pair, hence under any distribution of pairs,

    P(b > a) - 1/2 = beta (g(b|a) - g(a|a))                             L_q
    P(b > a) - 1/2 = beta / 2 (g(b|a) - g(a|b) + e(b) - e(a))           L_pi

    loss = (1 - share) L_pi + share L_q, the squared residuals, L_q averaged over both orders

    ratio   [P, 6] log-ratios of a judged pair (a, b): e(a), e(b), g(b|a), g(a|a), g(a|b), g(b|b), nats
    beats   [P] P(b > a); beta probability per nat; share in [0, 1]

One policy plays both roles by its prompt: the generator sees the task, the reviser the task with a draft. With binary labels the
targets are +1/2 and -1/2.

Choi et al. 2024, arXiv:2406.01660.
Departures: none known; the paper's ``share`` and revision prompt were not verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import ShapeError, check_shape
from guerdon.objectives import dpo, pair_mean, sequence_mean
from guerdon.objectives.loss import Loss, counted_only, mean_parts
from guerdon.objectives.squared_log_ratio import squared_log_ratio
from guerdon.policies.table import TablePolicy
from guerdon.systems.system import Bound, Comparison, Exact, Example, Metric, Reduction, System
from guerdon.tasks.preference_game import random_game, win_probability
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Batch, Recipe, Stage, Term
from guerdon.training.sources import Pairs, picks

ROLES = 6


def residuals(ratio: Tensor, beats: Tensor, *, beta: float = 0.1) -> Tensor:
    """[P, 3]: of L_pi, of L_q for the draft a, of L_q for the draft b; all 0 at the solution.

    >>> ratio = torch.tensor([[0.0, 0.2, 0.5, 0.0, -0.3, 0.0]])
    >>> [round(x, 4) for x in residuals(ratio, torch.tensor([0.9]), beta=0.5)[0].tolist()]
    [0.15, 0.15, -0.25]
    """
    check_shape("srpo", "ratio", ratio, (len(beats), ROLES), "a pair without its revisions")
    e_a, e_b, b_of_a, a_of_a, a_of_b, b_of_b = ratio.unbind(1)
    lead = beats - 0.5
    generator = lead - beta / 2 * (b_of_a - a_of_b + e_b - e_a)
    return torch.stack([generator, lead - beta * (b_of_a - a_of_a), -lead - beta * (a_of_b - b_of_b)], 1)


def srpo(
    log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor, group: Tensor, beats: Tensor, *, beta: float = 0.1, share: float = 0.5
) -> Loss:
    """The loss of a judged pair on each of its six rows: a, b, b given a, a given a, a given b, b given b.

    ``log_prob``, ``ref_log_prob``, ``mask`` [N, T]; ``group`` [N] the pair, whose rows follow one another; ``beats`` [N, T]
    P(b > a), the same at each step. Metrics: ``generator``, ``reviser``, the mean squared residuals.
    """
    log_prob, ref_log_prob = counted_only("srpo", mask, log_prob=log_prob, ref_log_prob=ref_log_prob)
    if len(group) % ROLES or (group.reshape(-1, ROLES) != group[::ROLES, None]).any():
        raise ShapeError(
            f"srpo: expected {ROLES} rows of each pair one after another, got {len(group)} rows that are not. "
            f"Usual cause: `micro_rows` that is no multiple of {ROLES}."
        )
    ratio = (log_prob - ref_log_prob).sum(1).reshape(-1, ROLES)
    squares = residuals(ratio, beats[::ROLES, 0].to(ratio.dtype), beta=beta) ** 2
    pi, q = squares[:, 0], squares[:, 1:].mean(1)
    counted = mask.any(1).reshape(-1, ROLES).all(1)
    value = torch.where(counted, (1 - share) * pi + share * q, 0)
    metrics = {"generator": mean_parts(pi, counted), "reviser": mean_parts(q, counted)}
    return Loss(value.repeat_interleave(ROLES), "row", counted.repeat_interleave(ROLES), metrics)


@dataclass(frozen=True)
class Revisions:
    """Judged pairs and their revisions. ``rows``: (prompt, a, b, P(a > b)); ``draft``: (prompt, answer) -> a reviser's prompt."""

    rows: Sequence[tuple[Any, Any, Any, float]]
    size: int
    draft: Callable[[Any, Any], Any]

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        prompts, answers, beats = [], [], []
        for i, _ in picks(len(self.rows), self.size, step, seed):
            prompt, a, b, p = self.rows[i]
            after_a, after_b = self.draft(prompt, a), self.draft(prompt, b)
            prompts += [prompt, prompt, after_a, after_a, after_b, after_b]
            answers += [a, b, b, a, a, b]
            beats.append(1 - p)
        rollouts = policy.encode(prompts, answers)
        pair = torch.arange(len(beats)).repeat_interleave(ROLES)
        told = torch.tensor(beats, dtype=torch.float64)[pair, None].expand(rollouts.mask.shape)
        return Batch(rollouts.replace(group=pair).with_field("beats", "step", told))


# ---- the claims: two bodies of data from one game

ANSWERS, PAIRS, SIZE, STEPS, BETA = 20, 4096, 256, 600, 0.2
WRITERS = ("first", "second")


def draft(prompt: str, answer: int) -> str:
    """The reviser's prompt."""
    return f"{prompt}, improve {answer}"


@lru_cache(maxsize=4)
def game(seed: int) -> tuple[Tensor, Tensor]:
    """The preferences [A, A] among the answers, which go in circles, and the two writers' distributions [2, A]."""
    g = torch.Generator().manual_seed(seed)
    return random_game(seed, ANSWERS, cycle=2.0), torch.randn(2, ANSWERS, generator=g, dtype=torch.float64).softmax(-1)


def data(seed: int) -> list[tuple[str, int, int, float]]:
    """Pairs that each writer wrote for itself, with the share of people who prefer the first."""
    preference, writers = game(seed)
    g = torch.Generator().manual_seed(seed)
    rows = []
    for writer, p in zip(WRITERS, writers, strict=True):
        a, b = torch.multinomial(p, 2 * PAIRS, replacement=True, generator=g).reshape(2, -1)
        rows += [(writer, x, y, preference[x, y].item()) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    return rows


def policy() -> TablePolicy:
    """A table row for each writer's generator, and for each draft of it one of its reviser."""
    tasks = [*WRITERS, *(draft(w, y) for w in WRITERS for y in range(ANSWERS))]
    return TablePolicy(tasks, ANSWERS, dtype=torch.float64)


def measure(seed: int, policy: TablePolicy, step: int) -> dict[str, float]:
    """``tv``: total variation between what was learnt from either data; ``win_k``: against uniform answers, after k revisions."""
    preference, _ = game(seed)
    table = policy.probabilities()[:, 0, 0]
    now, reviser = table[:2], table[2:].reshape(2, ANSWERS, ANSWERS)
    even = torch.full((ANSWERS,), 1 / ANSWERS, dtype=now.dtype)
    found = {"eval/tv": ((now[0] - now[1]).abs().sum() / 2).item()}
    found["eval/agreement"] = 1 - found["eval/tv"]
    found["eval/kl"] = (now * (now / even).log()).sum(1).mean().item()
    for k in range(4):
        found[f"eval/win_{k}"] = win_probability(now, even.expand(2, -1), preference).mean().item()
        now = torch.einsum("wa,wab->wb", now, reviser)
    return found


def recipe(seed: int, stage: Stage) -> Recipe:
    """What all arms share."""
    return Recipe("srpo", policy, [stage], Measured(50, partial(measure, seed)), seed, STEPS, 0, best="eval/agreement")


ADAM = {"optimiser": "adam", "max_grad_norm": 100.0}


def arm(seed: int, start: Any = None, *, beta: float = BETA, share: float = 0.5, lr: float = 0.03) -> Recipe:
    """SRPO on the data of both writers, each for its own generator and reviser."""
    objective = bind(srpo, beta=beta, share=share)
    source = Revisions(data(seed), SIZE, draft)
    term, whole = Term(1.0, objective, sequence_mean), ROLES * SIZE
    return recipe(seed, Stage("srpo", STEPS, source, [term], micro_rows=whole, lr=lr, updater=ADAM))


def by_pairs(seed: int, start: Any = None, *, objective: Any = squared_log_ratio, beta: float = BETA, lr: float = 0.03) -> Recipe:
    """An objective on plain pairs, for the same generators."""
    term = Term(1.0, bind(objective, beta=beta), pair_mean)
    return recipe(seed, Stage("pairs", STEPS, Pairs(data(seed), SIZE), [term], lr=lr, updater=ADAM))


def solution(preference: Tensor, log_reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """log pi* [A] and log q* [A, A] (draft, answer); ``log_reference`` [1 + A, A]: the generator's, then each draft's reviser's.

    >>> pi, q = solution(torch.tensor([[0.5, 1.0], [0.0, 0.5]]), torch.full((3, 2), 0.5).log(), 1.0)
    >>> [round(x, 4) for x in pi.exp().tolist()], [round(x, 4) for x in q[1].exp().tolist()]
    ([0.6225, 0.3775], [0.6225, 0.3775])
    """
    tilted = log_reference[1:] + preference.T / beta  # [draft a, answer b]: P(b > a)
    z = tilted.logsumexp(-1)
    return (log_reference[0] - z).log_softmax(-1), tilted - z[:, None]


def identities() -> dict[str, tuple[float, float]]:
    """The largest residual of each identity at the solution, for a game and references drawn at random."""
    preference, _ = game(0)
    reference = torch.randn(1 + ANSWERS, ANSWERS, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log_softmax(-1)
    pi, q = solution(preference, reference, BETA)
    a, b = torch.cartesian_prod(torch.arange(ANSWERS), torch.arange(ANSWERS)).unbind(1)
    e, g = pi - reference[0], q - reference[1:]
    found = residuals(torch.stack([e[a], e[b], g[a, b], g[a, a], g[b, a], g[b, b]], 1), preference[b, a], beta=BETA).abs().amax(0)
    return dict(zip(("L_pi", "L_q", "L_q, swapped"), ((x, 0.0) for x in found.tolist()), strict=True))


def gain_of_revision(seed: int, keeps: float = 0.5) -> float:
    """How much more often three revisions beat uniform answers than the generator alone, as solved.

    The reviser's reference repeats the draft with probability ``keeps``, as a language model does, and else gives any answer.
    """
    preference, _ = game(seed)
    even = torch.full((ANSWERS,), 1 / ANSWERS, dtype=preference.dtype)
    reviser = keeps * torch.eye(ANSWERS, dtype=even.dtype) + (1 - keeps) * even
    pi, q = (x.exp() for x in solution(preference, torch.cat([even[None], reviser]).log(), BETA))
    before, after = (win_probability(p, even, preference) for p in (pi, pi @ q @ q @ q))
    return (after - before).item()


def _example(dtype: torch.dtype) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "ratio": torch.randn(5, ROLES, generator=g, dtype=torch.float64).to(dtype),
        "beats": torch.linspace(0, 1, 5, dtype=dtype),
    }


def _without_reviser() -> tuple[Tensor, Tensor]:
    ratio = torch.zeros(3, ROLES, dtype=torch.float64)
    ratio[:, :2] = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    beats, rows = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64), torch.arange(3)
    both = ratio[:, :2].T.reshape(-1, 1)
    parent = squared_log_ratio(both, torch.zeros_like(both), both == both, rows + 3, rows, beats, beta=BETA / 2)
    return residuals(ratio, beats, beta=BETA)[:, 0] ** 2, parent.value


SYSTEM = System(
    title="SRPO",
    paper="Choi 2024",
    arxiv="2406.01660",
    roles=("preference-objective", "self-training", "nash-objective"),
    claims=(
        Comparison(
            statement="From pairs by two different writers, judged by preferences that go in circles, SRPO learns policies "
            "closer to each other than those of DPO at the same divergence from the reference.",
            arms={
                "srpo": arm,
                "dpo": partial(by_pairs, objective=dpo, beta=1.0),
                "ipo": by_pairs,
            },
            better="srpo",
            than="dpo",
            metric=Metric("eval/tv", higher=False, along="step"),
            budget=f"{STEPS} updates of {SIZE} pairs",
            differences=(
                "Tables over 20 answers, for language models and summaries.",
                "The distance between solutions, for the win rate under a shifted distribution, of which it is the cause.",
                "DPO's beta is 1 and SRPO's 0.2, by which both go equally far from the reference: 0.26 nats as solved exactly.",
                "No search: the distance is least for a policy that learns nothing. All arms have one learning rate and settle.",
                "Pairs carry the share of people who prefer the first, not one person's label, for all arms.",
            ),
        ),
        Exact(
            statement="The solution satisfies both identities for every pair.",
            measure=identities,
            tolerance=1e-12,
        ),
        Bound(
            statement="Three revisions by the solution's reviser beat uniform answers more often than its generator does, where "
            "the reviser's reference repeats half of the drafts.",
            measure=gain_of_revision,
            limit=0.0,
            above=True,
        ),
    ),
    built_from=("squared_log_ratio", "dpo", "Pairs", "sequence_mean", "pair_mean"),
    examples=(Example(residuals, _example, rows=("ratio", "beats")),),
    reductions=(Reduction("a reviser that keeps to the reference leaves IPO, at half of beta", _without_reviser),),
)
