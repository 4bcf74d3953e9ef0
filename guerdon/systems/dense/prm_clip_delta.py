# SPDX-License-Identifier: Apache-2.0
"""PRM Clip+Delta: a process reward that cannot be farmed.

A process reward model says how right each step of a solution looks. Paid for each step beside the answer's success, it teaches
the policy to write more right-looking steps. Two transforms bound what a solution of any length can earn.

    raw      c_k = p_k
    Clip     c_k = min(p_k - eta, 0)                             a good step earns nothing, a bad one costs
    Delta    c_k = p_k - p_{k+1} for k < K - 1, c_{K-1} = p_{K-1}, c_K = 0
             so that the return from step k on is alpha p_k + success, and for the last step the success alone
    both     Delta of the clipped scores

    p_k `process`, in [0, 1], one per step k = 1..K of the solution. Step k gets `alpha` c_k on its last token, the last token of
    all the success in {0, 1}, and each token minus `beta` times log(policy / reference).

Gao et al. 2024, arXiv:2410.15115.
Departures:
1. Delta's ends are those of the paper's idea and figure: the last step's score is dropped, since the success covers it. A note by
   others gives the last step its score and the first none, which does not telescope to the return above.
2. alpha and eta are not known to us for the paper's runs. eta follows its rule, that most steps get 0; alpha is ours.
"""

from __future__ import annotations

import zlib
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from guerdon.credit import gae, return_to_go, whiten
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean, value_loss
from guerdon.protocols import Sampling
from guerdon.rewards import Reward, reward
from guerdon.rewards.checkers import kl
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Exact, Metric, Start, System
from guerdon.tasks import chained_addition as chain
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts, contexts_of

if TYPE_CHECKING:
    from guerdon.policies.language import LanguagePolicy


def clipped(process: Reward, eta: float) -> Reward:
    """min(p_k - eta, 0).

    >>> clipped(looks_right, 0.7)(completions=["+5=5+8=4#4"], prompts=["5+8:"]).total.values[0].tolist()
    [0.0, -0.3446..., 0.0]
    """
    one = process.clip(1, 1)
    return (process - eta * one).clip(high=0)


def delta(process: Reward) -> Reward:
    """p_k - p_{k+1}, with the last step's score taken as 0.

    >>> looks_right(completions=["+5=5+8=4#4"], prompts=["5+8:"]).total.values[0].tolist()
    [0.8319..., 0.3553..., 0.7912...]
    >>> delta(looks_right)(completions=["+5=5+8=4#4"], prompts=["5+8:"]).total.values[0].tolist()
    [0.4765..., 0.3553..., 0.0]
    """
    one = process.clip(1, 1)
    return (process * (one - one.drop())).drop()


def clip_delta(process: Reward, eta: float) -> Reward:
    """Clip, then Delta: what a step of any solution earns from here on lies in [-eta, 0]."""
    return delta(clipped(process, eta))


def prm_clip_delta(
    source: Prompts,
    steps: int,
    success: Reward,
    process: Reward,
    *,
    eta: float,  # so that most steps get 0
    alpha: float = 0.5,  # ours
    beta: float = 0.02,  # weight of the divergence from the reference, ours
    lr: float = 1e-3,  # ours, for a tiny model
) -> Stage:
    """PPO on success and the transformed process reward; the policy has a value head and a reference."""
    return ppo("clip+delta", source, steps, success + alpha * clip_delta(process, eta), beta=beta, lr=lr)


def ppo(name: str, source: Prompts, steps: int, dense: Reward, *, beta: float, lr: float) -> Stage:
    """What all arms share: generalised advantages per token, the divergence inside the reward."""
    return Stage(
        name,
        steps,
        source,
        [Term(1.0, clipped_surrogate, token_mean), Term(0.5, value_loss, token_mean)],
        reward=dense - beta * kl(),
        credit=bind(gae, gamma=1.0, lam=0.95),
        transforms=[whiten],
        updates=2,
        rounds=2,
        lr=lr,
    )


# ---- the claims

DIGITS, LIMIT, ROWS, STEPS, WARM = 4, 21, 64, 30, 300
ALPHA, ETA, BETA = 0.5, 0.7, 0.02


@reward(bounds=(0, 1))
def success(completion: str, prompt: str) -> bool:
    """Whether the solution ends by the right answer."""
    return chain.success(completion, prompt)


@reward(level="segment", split=chain.STEP, bounds=(0, 1))
def looks_right(index: int, completion: str, prompt: str) -> float:
    """A process reward model that knows right from wrong but not how much: 0.6 to 1 for a right step, 0 to 0.4 for a wrong."""
    unsure = 0.4 * zlib.crc32(f"{prompt}{completion}{index}".encode()) / 2**32
    return 0.6 * _ticks(completion, prompt)[index] + unsure


@lru_cache(maxsize=4096)
def _ticks(completion: str, prompt: str) -> tuple[bool, ...]:
    return tuple(chain.step_is_right(completion, prompt))


DENSE = {
    "raw": ALPHA * looks_right,
    "clip": ALPHA * clipped(looks_right, ETA),
    "delta": ALPHA * delta(looks_right),
    "clip+delta": ALPHA * clip_delta(looks_right, ETA),
    "success": looks_right.watch(),
}


def fresh(seed: int) -> LanguagePolicy:
    """An untrained policy."""
    from guerdon.policies.language import LanguagePolicy

    return LanguagePolicy.tiny(chain.TOKENS, width=48, layers=2, max_length=32, seed=seed)


def started(start: Start) -> LanguagePolicy:
    """The policy after its warm start, which is its reference too."""
    from guerdon.policies.language import LanguagePolicy

    assert start is not None
    return LanguagePolicy.load(start / "policy", reference="copy", value_head=True)


def measured(every: int) -> Measured:
    """Of solutions to held-out tasks: share that succeed, steps in one, share of idle steps, share that state an answer."""
    contexts = contexts_of(chain.held_out_tasks(128, DIGITS, 0))

    def figures(policy: Any, step: int) -> dict[str, float]:
        said = policy.sample(contexts, Sampling(max_new_tokens=LIMIT), 0).values_at("completion", "episode")
        right = [chain.success(c, task.prompt) for c, task in zip(said, contexts, strict=True)]
        idle = [chain.is_idle(c) for c in said]
        steps = sum(map(len, idle))
        return {
            "eval/success": sum(right) / len(said),
            "eval/steps": steps / len(said),
            "eval/idle": sum(map(sum, idle)) / max(steps, 1),
            "eval/finished": sum("#" in c for c in said) / len(said),
        }

    return Measured(every, figures)


def prepare(seed: int) -> Recipe:
    """A model that has read solutions with one addition in five wrong and an idle step now and then."""
    shown = Demonstrations(chain.demonstrations(1000, DIGITS, seed, errors=0.2, idle=0.1), 32)
    stage = Stage("warm", WARM, shown, [Term(1.0, negative_log_likelihood, token_mean)], lr=lambda s: 6e-3 * (1 - s / WARM))
    return Recipe("warm", partial(fresh, seed), [stage], measured(WARM), seed=seed, save_rollouts_every=0, checkpoint_every=WARM)


def arm(name: str, seed: int, start: Start, *, lr: float = 1e-3) -> Recipe:
    """One of ``DENSE`` beside the success."""
    source = Prompts(contexts_of(chain.make_tasks(1000, DIGITS, seed)), ROWS, 1, Sampling(max_new_tokens=LIMIT))
    stage = ppo(name, source, STEPS, success + DENSE[name], beta=BETA, lr=lr)
    return Recipe(name, partial(started, start), [stage], measured(10), seed=seed, save_rollouts_every=0, checkpoint_every=STEPS)


def returns() -> dict[str, tuple[float, float]]:
    """step of a solution -> (what it earns from here on, alpha p_k + success), for a short solution and a padded one."""
    found = {}
    for said in ("+5=5+8=3#3", "+5=5;=5;=5;=5+8=3;=3#3", "+5=6+8=4;=4#4"):
        one = Rollouts.from_text(["5+8:"], [said], steps="characters")
        for name, score in (("delta", looks_right), ("clip+delta", clipped(looks_right, ETA))):
            scores = (success + ALPHA * delta(score)).score(one)
            togo = return_to_go(scores.reward().double(), one.mask, one.level("episode"))[0]
            p = score.score(one).total.values[0].double()
            level = scores.levels["segment"][0].tolist()
            ends = float(chain.success(said, "5+8:"))
            for k, (last, first) in enumerate(pairwise([-1, *level])):
                if first != last:
                    expected = ends + (ALPHA * p[first].item() if first < len(p) - 1 else 0.0)
                    found[f"{name} {said} {first}"] = (togo[k].item(), expected)
    return found


ARMS = {name: partial(arm, name) for name in DENSE}
TASK = (
    "chained addition modulo 10 of 4 digits with idle steps, a transformer of 2 layers of 32 that starts at about a third right"
)
DIFFERENCES = (
    f"{TASK}, instead of MATH and models of 1.5 to 7 billion parameters: it runs in seconds",
    "the process reward model is the step checker with noise instead of a trained model, as the specification allows",
    "a solution may have 21 tokens, 9 being enough, so that padding ends in no answer",
)

SYSTEM = System(
    title="PRM Clip+Delta",
    paper="Gao 2024",
    arxiv="2410.15115",
    roles=("process-reward", "reward-shaping", "reward-combination", "verifiable-reward", "monitoring"),
    built_from=("drop", "clip", "gae", "clipped_surrogate", "value_loss", "kl", "whiten"),
    claims=(
        Comparison(
            statement="A process reward paid for each step is farmed and ruins accuracy; with Clip and Delta it does not",
            arms=ARMS,
            better="clip+delta",
            than="raw",
            metric=Metric("eval/success"),
            budget=f"{STEPS * ROWS} samples in {STEPS} batches",
            prepare=prepare,
            grid={"lr": (3e-4, 1e-3)},
            chosen={"clip+delta": {"lr": 3e-4}, "raw": {"lr": 3e-4}},
            differences=DIFFERENCES,
        ),
        Comparison(
            statement="Paid for each step that looks right, the policy writes more steps than with the success alone",
            arms=ARMS,
            better="raw",
            than="success",
            metric=Metric("eval/steps"),
            budget=f"{STEPS * ROWS} samples in {STEPS} batches",
            prepare=prepare,
            differences=DIFFERENCES,
        ),
        Exact(
            statement="With Delta the return from step k on is alpha p_k + success, for the last step the success alone",
            measure=returns,
            tolerance=1e-6,
        ),
    ),
    follows="paper",
    exempt={"examples": "its transforms are reward expressions, whose values their doctests and the exact claim show"},
)
