# SPDX-License-Identifier: Apache-2.0
"""The implicit reward: its log-ratio, its loss by finite differences, what it learns from, and what it is saved with."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from guerdon.errors import InputError
from guerdon.protocols import Batch
from guerdon.rewards.implicit import implicit, log_ratio, outcome_logit
from guerdon.rollouts import Rollouts
from guerdon.scores import component, scores_of


class Bias:
    """A policy of two actions: log_prob = log sigmoid(± bias), the reference's that of bias 0. One parameter."""

    outputs = frozenset({"log_prob", "ref_log_prob"})

    def __init__(self) -> None:
        self.bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def evaluate(self, rollouts, want):
        self.calls += 1
        sign = 2 * rollouts.action.double() - 1
        zero = torch.zeros_like(sign, dtype=torch.float64)
        found = {
            "log_prob": torch.nn.functional.logsigmoid(sign * self.bias),
            "ref_log_prob": zero - math.log(2),
        }
        return {k: torch.where(rollouts.mask, v, 0) for k, v in found.items()}

    def updater(self, *, lr, max_grad_norm):
        from guerdon.policies.gradient_updater import GradientUpdater

        return GradientUpdater({"bias": self.bias}, lr=lr, optimiser="sgd", max_grad_norm=max_grad_norm)

    def state_dict(self):
        return {"bias": self.bias.detach().clone()}

    def load_state_dict(self, state):
        with torch.no_grad():
            self.bias.copy_(state["bias"])


ACTION = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)


def told(good=(1.0, 0.0, 1.0), weight=(1.0, 1.0, 1.0), usable=(True, True, True), step=0, name="outcome"):
    rollouts = Rollouts(ACTION, MASK, ["t"] * 3, length=MASK.sum(1), weight=torch.tensor(weight))
    scores = scores_of(rollouts, [component(name, "episode", torch.tensor(good, dtype=torch.float64)[:, None])])
    mask = MASK & torch.tensor(usable)[:, None]
    return SimpleNamespace(step=step, batch=Batch(rollouts), scores=scores, ingredients={"mask": mask})


def made(**settings):
    return implicit(Bias, "outcome", **{"beta": 0.5, "lr": 0.1, "max_grad_norm": 1e9, **settings})


def loss(bias: float, beta: float = 0.5) -> torch.Tensor:
    """Mean over the three rows of the cross-entropy, written out."""
    ratio = torch.nn.functional.logsigmoid((2 * ACTION.double() - 1) * bias) + math.log(2)
    p = torch.sigmoid(beta * (ratio * MASK).sum(1))
    good = torch.tensor([1.0, 0, 1]).double()
    return -(good * p.log() + (1 - good) * (1 - p).log()).mean()


def test_it_starts_by_paying_nothing_and_then_the_log_ratio() -> None:
    reward = made()
    rollouts = told().batch.rollouts
    assert not reward.score(rollouts).reward().any()
    with torch.no_grad():
        reward.policy.bias.fill_(1.0)
    up, down = (0.5 * (math.log(2) + math.log(1 / (1 + math.exp(-s)))) for s in (1, -1))
    assert reward.score(rollouts).reward()[1].tolist() == pytest.approx([down, down, 0.0])
    assert reward.score(rollouts).reward()[0].tolist() == pytest.approx([up, up, down])


def test_a_step_follows_the_gradient_of_the_cross_entropy() -> None:
    """By central differences at the bias where it stands."""
    reward = made()
    with torch.no_grad():
        reward.policy.bias.fill_(0.3)
    h = 1e-5
    slope = (loss(0.3 + h) - loss(0.3 - h)) / (2 * h)
    metrics = reward.update(told())
    assert reward.policy.bias.item() == pytest.approx(0.3 - 0.1 * slope.item(), rel=1e-6)
    assert metrics["process/loss"] == pytest.approx(loss(0.3).item())
    assert metrics["process/grad_norm"] == pytest.approx(abs(slope.item()), rel=1e-5)


def test_pieces_in_memory_change_nothing() -> None:
    whole, cut = made(), made(micro_rows=2)
    whole.update(told())
    cut.update(told())
    assert cut.policy.bias.item() == pytest.approx(whole.policy.bias.item(), rel=1e-12)
    assert cut.policy.calls == 2


@pytest.mark.parametrize(
    "left_out", [{"good": (1.0, math.nan, 1.0)}, {"weight": (1.0, 0.0, 1.0)}, {"usable": (True, False, True)}]
)
def test_it_learns_from_rows_that_were_judged_and_trained_on(left_out) -> None:
    """Without the bad row only good ones are left, and the bias moves as for these two alone."""
    reward = made()
    reward.update(told(**left_out))
    good = torch.nn.functional.logsigmoid(
        (2 * ACTION.double() - 1) * (b := torch.zeros((), dtype=torch.float64, requires_grad=True))
    )
    logit = 0.5 * ((good + math.log(2)) * MASK).sum(1)[[0, 2]]
    (-torch.nn.functional.logsigmoid(logit).mean()).backward()
    assert reward.policy.bias.item() == pytest.approx(-0.1 * b.grad.item())


def test_accuracy_is_of_verdicts_before_it_learns() -> None:
    reward = made(lr=100.0)
    assert reward.update(told())["process/accuracy"] == pytest.approx(1 / 3)  # a logit of 0 is no yes
    assert reward.update(told(good=(1.0, 1.0, 0.0)))["process/accuracy"] in (0, 1 / 3, 2 / 3, 1)


def test_updates_are_steps_of_its_optimiser_and_until_ends_them() -> None:
    several, frozen = made(updates=3), made(until=2)
    one_by_one = made()
    several.update(told())
    for n in range(3):
        one_by_one.update(told(usable=tuple(i == n for i in range(3))))
    assert several.policy.bias.item() == pytest.approx(one_by_one.policy.bias.item())
    assert frozen.update(told(step=1))
    before = frozen.policy.bias.item()
    assert frozen.update(told(step=2)) == {}
    assert frozen.policy.bias.item() == before


def test_state_is_the_models_and_its_optimisers() -> None:
    first, second = made(), made()
    first.update(told())
    second.load_state_dict(first.state_dict())
    for reward in (first, second):
        reward.update(told())
    assert second.policy.bias.item() == first.policy.bias.item() != 0


def test_two_of_the_same_text_learn_apart_and_one_is_one() -> None:
    reward = made()
    assert made() != reward
    assert reward == reward
    assert len((reward + 0.5 * reward).nodes()) == 3


def test_mistakes() -> None:
    with pytest.raises(InputError, match=r"process: learns from the term `outcome`, but the terms are correct\."):
        made().update(told(name="correct"))

    class Plain(Bias):
        outputs = frozenset({"log_prob"})

    with pytest.raises(InputError, match=r"the model should offer log_prob and ref_log_prob, got one that offers log_prob"):
        implicit(Plain, "outcome").score(told().batch.rollouts)


def test_the_logit_skips_masked_steps() -> None:
    x = torch.tensor([[1.0, math.nan]])
    assert outcome_logit(x, torch.zeros(1, 2), torch.tensor([[True, False]]), beta=2.0).tolist() == [2.0]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rounding_is_no_reward_and_nothing_else_is_lost(kind) -> None:
    eps = torch.finfo(kind).eps
    log_prob = torch.tensor([-3.0, -3.0, -3.0, -1e-3, -math.inf, -2.0, -math.inf, math.nan], dtype=kind)
    apart = torch.tensor([0, 8 * eps, 200 * eps, 8 * eps, 0, 0, 0, 0], dtype=kind)
    reference = torch.where(
        torch.tensor([0, 0, 0, 0, 0, 1, 1, 0], dtype=torch.bool), -math.inf, log_prob.nan_to_num(-1.0, neginf=-1.0)
    )
    found = log_ratio(log_prob + apart, reference)
    assert found[[0, 1, 3]].tolist() == [0, 0, 0] and found[2] == pytest.approx(200 * eps, rel=0.02)
    assert found[4] == -math.inf and found[5] == math.inf and found[6:].isnan().all()


def test_a_classifier_that_is_its_reference_up_to_rounding_pays_nothing() -> None:
    r = implicit(Bias, "outcome")
    with torch.no_grad():
        r.policy.bias.fill_(1e-15)
    rollouts = Rollouts(ACTION, MASK, ["t"] * 3, length=MASK.sum(1))
    values = r.compute(rollouts, [], 0).values
    assert values[MASK].tolist() == [0.0] * int(MASK.sum())
