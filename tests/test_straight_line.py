# SPDX-License-Identifier: Apache-2.0
"""The composed loop and `examples/straight_line.py` are the same computation: token for token, and to rounding elsewhere."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.text import Decoder
from guerdon.policies.token_distribution import stream
from guerdon.protocols import Sampling
from guerdon.recipes import quickstart
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Scores
from guerdon.tasks import running_digits
from guerdon.training.evaluation import Evaluation, evaluate
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts, contexts_of

LENGTH, SEED = 3, 5
TASKS, PROMPTS, SAMPLES = 7, 5, 6  # fewer tasks than three batches take, so that epochs end within one
UPDATES, ROUNDS, LEARNING_RATE = 3, 2, 5e-3  # a rate at which the second round on a batch leaves the clip's interval
ROOM = Sampling(max_new_tokens=2 * LENGTH + 2)
PATH = Path(__file__).resolve().parent.parent / "examples" / "straight_line.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("straight_line", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _float64() -> Iterator[None]:
    """Rewards have the default dtype; in float32 it would be their rounding that is compared."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script with smaller batches."""
    module = load_script()
    module.PROMPTS, module.SAMPLES, module.ROUNDS = PROMPTS, SAMPLES, ROUNDS
    return module


def fresh_policy() -> LanguagePolicy:
    return LanguagePolicy.tiny(
        running_digits.TOKENS, width=32, layers=2, heads=4, max_length=4 * LENGTH + 8, seed=SEED, dtype=torch.float64
    )


def weights_of(policy: LanguagePolicy) -> dict[str, Tensor]:
    """A copy of the policy's weights, as the script takes them."""
    return {k: v.detach().clone().requires_grad_() for k, v in policy.model.state_dict().items()}


def policy_with(weights: dict[str, Tensor]) -> LanguagePolicy:
    policy = fresh_policy()
    policy.model.load_state_dict({k: v.detach().clone() for k, v in weights.items()})
    return policy


@pytest.fixture(scope="module")
def taught(script: ModuleType, _float64: None) -> dict[str, Tensor]:
    """Weights that write the form and half of the steps."""
    weights = weights_of(fresh_policy())
    for _ in script.teach(weights, script.demonstrations(400, LENGTH, SEED), 150, SEED, size=32):
        pass
    return {k: v.detach() for k, v in weights.items()}


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone().requires_grad_() for k, v in weights.items()}


class Seen:
    """What went through the loop, told by a selection that keeps every row, a transform that changes nothing, and an observer."""

    def __init__(self) -> None:
        self.rollouts: list[Rollouts] = []
        self.scores: list[Scores] = []
        self.advantage: list[Tensor] = []
        self.lines: list[dict[str, Any]] = []

    def select(self, rollouts: Rollouts, scores: Scores) -> Tensor:
        self.rollouts.append(rollouts)
        self.scores.append(scores)
        return torch.ones(len(rollouts), dtype=torch.bool)

    def transform(self, advantage: Tensor) -> Tensor:
        self.advantage.append(advantage.clone())
        return advantage

    def start(self, config: Any, directory: Path, step: int) -> None: ...

    def metrics(self, step: int, metrics: Any) -> None:
        self.lines.append(dict(metrics))

    def finish(self, result: Any) -> None: ...


def composed(stage: Stage, policy: LanguagePolicy, directory: Path, seen: Seen) -> Seen:
    """``stage`` alone, run by the loop."""
    train(Recipe("composed", lambda: policy, [stage], seed=SEED), directory, [seen])
    return seen


def same_numbers(script_says: Any, loop_says: Any, atol: float) -> None:
    torch.testing.assert_close(torch.as_tensor(script_says), torch.as_tensor(loop_says), atol=atol, rtol=0)


def same_weights(weights: dict[str, Tensor], policy: LanguagePolicy, atol: float) -> None:
    theirs = policy.model.state_dict()
    assert weights.keys() == theirs.keys()
    for name, w in weights.items():
        torch.testing.assert_close(w.detach(), theirs[name], atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_task_and_tokens_are_the_same(script: ModuleType) -> None:
    tasks = running_digits.make_tasks(50, LENGTH, SEED)
    rows = script.rows_of_digits(50, LENGTH, random.Random(f"tasks {SEED}"), held_out=False)
    assert [script.prompt_of(r) for r in rows] == [t.prompt for t in tasks]
    assert [script.right_chain(r) for r in rows] == ["".join(t.fields["steps"]) for t in tasks]
    unseen = script.rows_of_digits(50, LENGTH, random.Random("held out 0"), held_out=True)
    assert [script.prompt_of(r) for r in unseen] == [t.prompt for t in running_digits.held_out_tasks(50, LENGTH, 0)]
    shown = [(script.prompt_of(r), text) for r, text in script.demonstrations(50, LENGTH, SEED)]
    assert shown == running_digits.demonstrations(50, LENGTH, SEED)

    policy = fresh_policy()
    assert {piece: i for i, piece in enumerate(script.VOCABULARY)} == policy.tokenizer.get_vocab()
    assert script.contexts_of(rows).tolist() == policy.contexts([t.prompt for t in tasks])
    streams = [script.uniforms(SEED, r, 3, 8).tolist() for r in rows]
    assert streams == stream(SEED, [(t.key, 3) for t in tasks], 8).tolist()


def test_teaching_is_the_same(script: ModuleType, tmp_path: Path) -> None:
    updates, size = 6, 8
    policy = fresh_policy()
    weights = weights_of(policy)
    losses = list(script.teach(weights, script.demonstrations(20, LENGTH, SEED), updates, SEED, size))
    source = Demonstrations(running_digits.demonstrations(20, LENGTH, SEED), size)
    term = Term(1.0, negative_log_likelihood, token_mean)
    seen = composed(Stage("warm", updates, source, [term], lr=lambda s: 3e-3 * (1 - s / updates)), policy, tmp_path, Seen())
    same_numbers(losses, [line["loss/negative_log_likelihood"] for line in seen.lines], 1e-9)
    same_weights(weights, policy, 1e-9)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("shared", "atol"), [(False, 1e-9), (True, 1e-6)])
def test_improving_is_the_same(
    script: ModuleType, taught: dict[str, Tensor], shared: bool, atol: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the policy reads a context once for all of its samples, gradients are rounded to float32 in the norms after they are
    summed over the samples and not before, as in the script; otherwise all that differs is the order of float64 sums."""
    if not shared:
        monkeypatch.setattr("guerdon.policies.language.reads_flat", lambda model: False)
    weights, policy, seen = copied(taught), policy_with(taught), Seen()
    tasks = script.rows_of_digits(TASKS, LENGTH, random.Random(f"tasks {SEED}"), held_out=False)
    records = list(script.improve(weights, tasks, UPDATES, SEED, LEARNING_RATE))

    contexts = contexts_of(running_digits.make_tasks(TASKS, LENGTH, SEED))
    stage = Stage(
        "train",
        UPDATES,
        Prompts(contexts, PROMPTS, SAMPLES, ROOM),
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=quickstart.rewards()["dense"],
        credit=partial(group_relative, level="step"),
        transforms=[seen.transform],
        select=seen.select,
        rounds=ROUNDS,
        lr=LEARNING_RATE,
    )
    composed(stage, policy, tmp_path, seen)

    for ours, rollouts, scores, advantage, line in zip(
        records, seen.rollouts, seen.scores, seen.advantage, seen.lines, strict=True
    ):
        assert torch.equal(ours["token"], rollouts.action) and torch.equal(ours["mask"], rollouts.mask)
        same_numbers(ours["old_log_prob"], rollouts.log_prob, 10 * atol)
        same_numbers(ours["reward"], scores.reward(), 1e-9)
        assert torch.equal(ours["counted"], rollouts.mask & ~advantage.isnan())
        same_numbers(ours["advantage"], advantage.nan_to_num(0.0), 1e-9)
        same_numbers(sum(ours["losses"]) / ROUNDS, line["loss/clipped_surrogate"], atol)
        same_numbers(sum(ours["grad_norms"]) / ROUNDS, line["grad_norm"], atol)
    same_weights(weights, policy, atol)

    # What would make agreement cheap: nothing to compare, nothing clipped, every token counted, no movement.
    assert len(records) == UPDATES
    assert all(r["advantage"].abs().max() > 0.5 for r in records)
    assert all(line["clip_low"] > 0.01 for line in seen.lines) and any(line["clip_high"] > 0.01 for line in seen.lines)
    assert any(not torch.equal(r["counted"], r["mask"]) for r in records)
    assert max((w - taught[k]).abs().max().item() for k, w in weights.items()) > LEARNING_RATE


def test_rewards_are_the_same_on_damaged_chains(script: ModuleType) -> None:
    """Tokens exchanged, lost and slipped in, special ones among them: what a policy hardly ever writes."""
    draw = random.Random(0)
    rows = [draw.choices(range(10), k=LENGTH) for _ in range(400)]
    written = []
    for digits in rows:
        tokens = script.encode(script.right_chain(digits))
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            at = draw.randrange(len(tokens))
            tokens[at : at + draw.choice((0, 1))] = draw.choice(([], [draw.randrange(len(script.VOCABULARY))]))
        written.append(tokens + [script.EOS] * draw.choice((0, 1)) or [script.EOS])
    longest = max(map(len, written))
    length = torch.tensor([len(w) for w in written])
    decoder = Decoder(fresh_policy().tokenizer)
    texts, spans = zip(*(decoder.spans(w) for w in written), strict=True)
    offset = [s + [(len(x), len(x))] * (longest - len(s)) for x, s in zip(texts, spans, strict=True)]
    rollouts = Rollouts(
        action=torch.tensor([w + [0] * (longest - len(w)) for w in written]),
        mask=torch.arange(longest) < length[:, None],
        task=[str(n) for n in range(len(rows))],
        length=length,
        fields={
            "prompt": Field("task", [script.prompt_of(r) for r in rows]),
            "completion": Field("episode", [[x] for x in texts]),
            "offset": Field("step", torch.tensor(offset)),
        },
    )
    ours = torch.zeros(len(rows), longest)
    for n, (tokens, digits) in enumerate(zip(written, rows, strict=True)):
        ours[n, : len(tokens)] = torch.tensor(script.reward_of(tokens, digits))
    same_numbers(ours, quickstart.rewards()["dense"].score(rollouts).reward(), 1e-9)
    assert len(ours.sum(1).unique()) > 6


def test_the_held_out_check_is_the_same(script: ModuleType, taught: dict[str, Tensor]) -> None:
    rows = script.rows_of_digits(400, LENGTH, random.Random("tasks 0"), held_out=False)
    weights = copied(taught)
    for _ in script.teach(weights, [(r, script.right_chain(r)) for r in rows], 100, SEED, size=32):
        pass
    rows = script.rows_of_digits(64, LENGTH, random.Random("held out 0"), held_out=True)
    contexts = contexts_of(running_digits.held_out_tasks(64, LENGTH, 0))
    found = evaluate(policy_with(weights), Evaluation(contexts, quickstart.chain_right, 1, samples=1, sampling=ROOM), 0)
    assert script.greedy_success(weights, rows) == found["eval/greedy"]
    assert 0 < found["eval/greedy"] < 1


def test_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """From few of the chains to most of them; with the rewards of steps taken away it stays below a fifth."""
    torch.set_default_dtype(torch.float32)
    try:
        curve = load_script().train(length=4, taught=200, updates=6)
    finally:
        torch.set_default_dtype(torch.float64)
    assert curve[0] < 0.2 and curve[-1] > 0.5
    assert f"{curve[-1]:.0%}" in capsys.readouterr().out
