# SPDX-License-Identifier: Apache-2.0
"""PRIME: process reinforcement through implicit rewards.

A reward for every token from labels of outcomes alone: a language model is trained online to tell right answers from wrong ones
by the sum of its log-ratios to a frozen reference. Each token's log-ratio is its process reward, beside the verifier's outcome.

    r_t = beta log(π_φ(y_t) / π_ref(y_t))             `guerdon.rewards.implicit`, which learns from each batch after scoring it
    G_t = Σ_{s ≥ t} r_s / max |Σ_{s ≥ t} r_s|         the largest of the batch, so that the process cannot swamp the outcome
    P_t = (K G_t - n_t Σ_j m_j) / (K - 1)             n_t tokens from t on; m_j the mean of response j's r / max
    A_t = P_t + o - mean of the others' o             then whitened; o in {0, 1} the outcome, K responses to a prompt

    `advantages["process"]`, `advantages["outcome"]` [N, T] are returns-to-go; `group` [N] the prompt of each response. Prompts
    whose share of right responses is outside [low, high] take no part. Without the process this is RLOO.

Cui et al. 2025, arXiv:2502.01456, and its released code.
Departures:
1. The leave-one-out of token rewards is the code's, as above: r_t K/(K-1) - Σ_j m_j/(K-1). The paper's, r_t minus the mean of the
   others' m_j, differs from it by (r_t - m_i) / (K - 1).
2. The discount is 1, as in the released runs, and no argument.
3. Process rewards keep the factor beta that the code leaves out; the division by the largest return takes it away again.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guerdon.credit import group_relative, return_to_go, whiten
from guerdon.credit.band import accuracy_band
from guerdon.errors import check_shape
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean
from guerdon.protocols import Policy, Sampling
from guerdon.rewards import Reward, reward
from guerdon.rewards.implicit import implicit
from guerdon.systems.system import Bound, Comparison, Example, Metric, Reduction, Start, System
from guerdon.tasks import chained_addition as chain
from guerdon.training.binding import bind
from guerdon.training.evaluation import Evaluation
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts, contexts_of

if TYPE_CHECKING:
    from guerdon.policies.language import LanguagePolicy


def process_advantage(returns: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    """P_t of the module's equation, [N, T].

    ``returns`` [N, T] returns-to-go of the token rewards; ``mask`` [N, T] bool; ``group`` [N] int64. A row with a return that is
    not finite is NaN and in no statistic, and so is a row alone in its group. Without any reward all are 0.

    >>> returns, mask = torch.tensor([[2., 1.], [-4., -3.]]), torch.ones(2, 2, dtype=torch.bool)
    >>> process_advantage(returns, mask, torch.zeros(2, dtype=torch.long)).tolist()
    [[1.5, 0.75], [-1.5, -1.25]]
    """
    check_shape("process_advantage", "mask", mask, tuple(returns.shape), "a mask per row instead of per step")
    check_shape("process_advantage", "group", group, (returns.shape[0],), "a group per step instead of per row")
    known = ~(mask & ~returns.isfinite()).any(1) & mask.any(1)
    used = mask & known[:, None]
    largest = torch.where(used, returns, 0).abs().max()
    scaled = torch.where(used, returns, 0) / torch.where(largest > 0, largest, 1)
    left = _remaining(used).to(scaled.dtype)
    mean = scaled.gather(1, used.long().argmax(1, keepdim=True))[:, 0] / left.amax(1).clamp(min=1)
    index = torch.unique(group, return_inverse=True)[1]

    def over(x: Tensor) -> Tensor:
        return torch.zeros_like(mean).index_add(0, index, x)[index][:, None]

    members = over(known.to(mean.dtype))
    advantage = (members * scaled - left * over(mean)) / (members - 1).clamp(min=1)
    usable = known[:, None] & (members > 1)
    return torch.where(mask, torch.where(usable, advantage, torch.nan), 0)


def prime_advantage(
    advantages: Mapping[str, Tensor], mask: Tensor, group: Tensor, *, low: float = 0.2, high: float = 0.8
) -> Tensor:
    """A_t of the module's equation, not yet whitened, [N, T]; NaN for prompts whose mean outcome is outside [low, high].

    ``advantages``: returns-to-go of the ``outcome`` (one reward a row, on its last token) and, if there is one, the ``process``.

    >>> outcome, process = torch.tensor([[1., 1.], [0., 0.]]), torch.tensor([[2., 1.], [-4., -3.]])
    >>> mask, group = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    >>> prime_advantage({"outcome": outcome, "process": process}, mask, group).tolist()
    [[2.5, 1.75], [-2.5, -2.25]]
    >>> prime_advantage({"outcome": outcome}, mask, group).tolist()
    [[1.0, 1.0], [-1.0, -1.0]]
    """
    returns = advantages["outcome"]
    outcome = returns.gather(1, mask.long().argmax(1, keepdim=True))[:, 0]
    kept = mask & accuracy_band(outcome, group, low=low, high=high)[:, None]
    on_last = torch.where(_remaining(mask) == 1, returns, 0)
    advantage = group_relative(on_last, mask, group, baseline="leave_one_out")
    if "process" in advantages:
        advantage = advantage + process_advantage(torch.where(kept, advantages["process"], torch.nan), mask, group)
    return torch.where(kept | ~mask, advantage, torch.nan)


def _remaining(mask: Tensor) -> Tensor:
    """[N, T] counted steps from each counted step on, 0 elsewhere."""
    return torch.where(mask, mask.long().flip(1).cumsum(1).flip(1), 0)


def prime(
    source: Prompts,
    steps: int,
    outcome: Reward,
    model: Callable[[], Policy],
    *,
    beta: float = 0.05,  # paper
    low: float = 0.2,  # released code
    high: float = 0.8,  # released code
    lr: float = 5e-7,  # paper, for 7 billion parameters
    model_lr: float = 1e-6,  # paper
    model_updates: int = 16,  # released code: 1024 responses in pieces of 64
    updates: int = 4,  # released code: 1024 responses in pieces of 256
    until: int | None = None,
) -> Stage:
    """``model`` makes the classifier, which starts as the policy does; with ``until`` it learns in the first batches only.

    Watch ``process/accuracy``, of its verdicts on responses that it has not learnt from.
    """
    return Stage(
        "train",
        steps,
        source,
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=outcome.named("outcome") + implicit(model, "outcome", beta=beta, lr=model_lr, updates=model_updates, until=until),
        credit=return_to_go,
        combine=bind(prime_advantage, low=low, high=high),
        transforms=[whiten],
        updates=updates,
        lr=lr,
    )


# ---- the claims

DIGITS, PROMPTS, SAMPLES, STEPS, WARM = 6, 64, 4, 12, 500
SAMPLING = Sampling(max_new_tokens=2 * DIGITS + 4)


@reward(bounds=(0, 1))
def success(completion: str, prompt: str) -> bool:
    """Whether the solution ends by the right answer."""
    return chain.success(completion, prompt)


def fresh(seed: int) -> LanguagePolicy:
    """An untrained policy."""
    from guerdon.policies.language import LanguagePolicy

    return LanguagePolicy.tiny(chain.TOKENS, width=48, layers=2, max_length=40, seed=seed)


def started(start: Start, reference: str = "none") -> LanguagePolicy:
    """The policy after its warm start: where both the policy and the classifier begin."""
    from guerdon.policies.language import LanguagePolicy

    assert start is not None
    return LanguagePolicy.load(start / "policy", reference=reference)


def evaluation(every: int) -> Evaluation:
    """Held-out pass@1."""
    return Evaluation(contexts_of(chain.held_out_tasks(192, DIGITS, 0)), success, every, 1, SAMPLING, greedy=False)


def prepare(seed: int) -> Recipe:
    """A model that has read solutions with three additions in twenty wrong."""
    shown = Demonstrations(chain.demonstrations(2048, DIGITS, seed, errors=0.15), 32)
    stage = Stage("warm", WARM, shown, [Term(1.0, negative_log_likelihood, token_mean)], lr=lambda s: 6e-3 * (1 - s / WARM))
    return Recipe(
        "warm", partial(fresh, seed), [stage], evaluation(WARM), seed=seed, save_rollouts_every=0, checkpoint_every=WARM
    )


def arm(name: str, seed: int, start: Start, *, lr: float = 1e-3, steps: int = STEPS) -> Recipe:
    """A classifier that learns ``online`` or is ``frozen`` after two batches; or RLOO, the same with the ``outcome`` alone."""
    source = Prompts(contexts_of(chain.make_tasks(2048, DIGITS, seed)), PROMPTS, SAMPLES, SAMPLING)
    model = partial(started, start, "copy")
    stage = prime(source, steps, success, model, lr=lr, model_lr=2 * lr, until=2 if name == "frozen" else None)
    if name == "outcome":
        stage = replace(stage, reward=success.named("outcome"))
    return Recipe(name, partial(started, start), [stage], evaluation(2), seed=seed, save_rollouts_every=0, checkpoint_every=STEPS)


def ranked(reward: Sequence[float], right: Sequence[bool]) -> float | None:
    """Share of the steps before the first wrong one that are paid more than it is, a tie for half; None where there is none.

    >>> ranked([3.0, 1.0, 2.0, 0.0], [True, True, False, True]), ranked([1.0, 1.0], [True, True])
    (0.5, None)
    """
    first = list(right).index(False) if False in right else 0
    above = [(x > reward[first]) + (x == reward[first]) / 2 for x in reward[:first]]
    return sum(above) / first if above else None


def localisation(seed: int) -> float:
    """``ranked``, after half of the batches, on fresh solutions to held-out tasks; the mean over those it says something of."""
    with tempfile.TemporaryDirectory() as directory:
        start = Path(directory) / "start"
        train(prepare(seed), start)
        recipe = arm("online", seed, start, steps=STEPS // 2)
        train(recipe, Path(directory) / "run")
        tasks = contexts_of(chain.held_out_tasks(512, DIGITS, 1))
        rollouts = started(start).sample(tasks, SAMPLING, seed)
        (process,) = (node for node in recipe.stages[0].reward.nodes() if node.name == "process")  # type: ignore[union-attr]
        total = process.compute(rollouts, [], 0).values[:, 1 : 2 * DIGITS : 2].tolist()  # of the tokens that state a total
    said = rollouts.values_at("completion", "episode")
    ticks = [chain.step_is_right(c, t.prompt)[:DIGITS] for c, t in zip(said, tasks, strict=True)]
    found = [share for x, right in zip(total, ticks, strict=True) if (share := ranked(x, right)) is not None]
    return statistics.fmean(found)


def example(dtype: torch.dtype) -> dict[str, Tensor]:
    """Two prompts with two responses each, of different lengths."""
    returns = [[0.4, 0.1, 0.3], [-0.9, -0.6, 0.0], [0.2, 0.5, 0.0], [-0.3, -0.1, -0.2]]
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, False], [True, True, True]])
    return {"returns": torch.tensor(returns, dtype=dtype), "mask": mask, "group": torch.tensor([0, 0, 1, 1])}


def both(dtype: torch.dtype) -> dict[str, Any]:
    """The example with an outcome for each response."""
    inputs = example(dtype)
    outcome = torch.tensor([[1.0], [0.0], [0.0], [1.0]], dtype=dtype).expand(4, 3) * inputs["mask"]
    return {"advantages": {"outcome": outcome, "process": inputs["returns"]}, "mask": inputs["mask"], "group": inputs["group"]}


def as_rloo() -> tuple[Tensor, Tensor]:
    """Without a process reward: leave-one-out of the outcome."""
    inputs = both(torch.float64)
    mask, outcome = inputs["mask"], inputs["advantages"]["outcome"]
    last = torch.where(_remaining(mask) == 1, outcome, 0)
    alone = prime_advantage({"outcome": outcome}, mask, inputs["group"])
    return alone, group_relative(last, mask, inputs["group"], baseline="leave_one_out")


TRIED = (
    "On development seeds, at equal samples: chains of 4, 6 and 12 digits with 35, 15 and 10 % wrong additions at the start; "
    "beta 0.05, 0.5 and 1; 1 to 16 classifier steps a batch at rates of 3e-4 to 3e-3; 64 and 256 responses a batch. With 64 the "
    "classifier is noise for the first ten batches, which the division by the largest return makes as loud as a verdict, and "
    "PRIME is clearly behind. With 256 and as many steps of the classifier a batch as published it is level with the outcome "
    "alone. An answer here is right only if every step is, so the outcome alone never pays for a wrong token."
)
ARMS = {name: partial(arm, name) for name in ("online", "outcome", "frozen")}

SYSTEM = System(
    title="PRIME",
    paper="Cui 2025",
    arxiv="2502.01456",
    roles=("process-reward", "reward-model", "credit-assignment", "policy-objective", "verifiable-reward"),
    built_from=("implicit", "return_to_go", "group_relative", "accuracy_band", "clipped_surrogate", "whiten"),
    examples=(
        Example(process_advantage, example, rows=("returns", "mask", "group"), padded=("returns",)),
        Example(prime_advantage, both),
    ),
    reductions=(Reduction("no process reward: leave-one-out of the outcome (RLOO)", as_rloo),),
    claims=(
        Comparison(
            statement="With process rewards learnt online from outcomes, pass@1 rises in fewer samples than with outcomes alone",
            arms=ARMS,
            better="online",
            than="outcome",
            metric=Metric("eval/success", "mean"),
            budget=f"{STEPS * PROMPTS * SAMPLES} samples in {STEPS} batches",
            effect=0.03,  # a quarter fewer samples to the same pass@1 would bring about as much on these curves
            prepare=prepare,
            grid={"lr": (5e-4, 1e-3)},
            chosen={"online": {"lr": 1e-3}, "outcome": {"lr": 1e-3}},
            interims=2,
            differences=(
                "chained addition of 6 digits modulo 10, a transformer of 2 layers of 48 that starts a third right",
                "the mean over the curve, since a level that all runs reach lies where the curves are flat",
                "batches of 64 prompts, not 256; the learning rates are of a tiny model, the classifier's twice the policy's",
            ),
            tried=TRIED,
        ),
        Bound(
            statement="Learnt from outcomes alone, the process reward is lower at the first error than at the right steps before",
            measure=localisation,
            limit=0.5,
            above=True,
            seeds=5,
            differences=("the error's rank among the right steps before it, whose chance level is 1/2 whatever their number",),
        ),
    ),
    follows="code",
)
