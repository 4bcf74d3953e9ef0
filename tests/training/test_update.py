# SPDX-License-Identifier: Apache-2.0
"""The update: micro-batches change nothing but rounding, what doesn't count has no gradient, metrics are means of what does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import ExpressionError, GuerdonError, InputError
from guerdon.objectives import (
    clipped_surrogate,
    constant,
    dpo,
    entropy_bonus,
    kl_penalty,
    negative_log_likelihood,
    pair_mean,
    reinforce,
    sequence_mean,
    token_mean,
    value_loss,
)
from guerdon.objectives.loss import Loss, writes_slope
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Rollouts
from guerdon.training.binding import Ingredients
from guerdon.training.recipe import Batch, Stage, Term
from guerdon.training.update import Update
from tests.training.table import Table, TableUpdater

PROMPTS = ["p", "q", "r"]


class NoSource:
    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        raise AssertionError("the update asks for no batch")


def table() -> Table:
    return Table(PROMPTS, length=5, seed=3)


def sampled(n: int = 9, seed: int = 0) -> Batch:
    contexts = [Context(f"task {i % 3}", PROMPTS[i % 3], {}, index=i, group=i % 3) for i in range(n)]
    return Batch(table().sample(contexts, Sampling(5), seed))


def update(batch: Batch, terms: list[Term], *, given: dict[str, Tensor] | None = None, step: int = 0, **settings: Any):
    """(metrics, gradients of each optimiser step) of one batch; ``lr`` 0 unless told, so that every step is at the same place."""
    policy = table()
    updater = TableUpdater(policy)
    ingredients = Ingredients(batch.rollouts, batch.comparisons)
    ingredients.update(given or {})
    stage = Stage("test", 1, NoSource(), terms, **{"lr": 0.0, **settings})
    metrics = Update(stage, batch, None, ingredients, policy, updater, step).run()
    return metrics, updater.seen


def advantages(batch: Batch) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    shape = batch.rollouts.mask.shape
    return {
        "advantage": torch.randn(shape, generator=g, dtype=torch.float64),
        "return_": torch.randn(shape, generator=g, dtype=torch.float64),
        "ref_log_prob": -torch.rand(shape, generator=g, dtype=torch.float64),
    }


STEP_TERMS = [
    [
        Term(1.0, partial(clipped_surrogate, clip_low=0.1), reduction),
        Term(0.5, value_loss, reduction),
        Term(-0.1, entropy_bonus, reduction),
    ]
    for reduction in (token_mean, sequence_mean, constant(7.0))
]


def row_mean(log_prob: Tensor, mask: Tensor) -> Loss:
    """A loss per row."""
    return Loss(torch.where(mask, -log_prob, 0).sum(1) ** 2, "row", mask.any(1))


KL = Term(0.3, partial(kl_penalty, estimator="k3"), sequence_mean)


@pytest.mark.parametrize("terms", [*STEP_TERMS, [KL, Term(1.0, reinforce, token_mean)]])
@pytest.mark.parametrize("pairs", [False, True])
def test_written_slopes_give_the_gradient_of_autograd(terms: list[Term], pairs: bool, monkeypatch) -> None:
    batch = tournament() if pairs else sampled()
    batch.rollouts.weight[:] = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 0.25, 3.0, 1.0])
    with monkeypatch.context() as patch:
        patch.setattr("guerdon.training.gradient._writes", lambda term: frozenset())
        expected, through = update(batch, terms, given=advantages(batch), updates=2, micro_rows=2, rounds=2, lr=0.5)
    monkeypatch.setattr(torch.autograd, "grad", None)  # nothing asks for it
    metrics, written = update(batch, terms, given=advantages(batch), updates=2, micro_rows=2, rounds=2, lr=0.5)
    assert metrics == pytest.approx(expected, rel=1e-12)
    assert len(written) == 4 and all(torch.allclose(a, b, atol=1e-13) for a, b in zip(written, through, strict=True))


def test_slopes_are_used_where_every_term_writes_those_of_all_it_reads() -> None:
    @writes_slope("log_prob")
    def with_entropy(log_prob: Tensor, entropy: Tensor, mask: Tensor) -> Loss:
        return Loss(torch.where(mask, -log_prob * entropy, 0), "step", mask)

    batch = sampled()
    _, (some,) = update(batch, [Term(1.0, with_entropy, token_mean)])  # through autograd, since it reads the entropy too
    assert some.abs().max() > 1e-3

    @writes_slope("log_prob")
    def forgotten(log_prob: Tensor, mask: Tensor) -> Loss:
        return negative_log_likelihood(log_prob, mask)

    with pytest.raises(InputError, match="forgotten: expected a loss with a `slope`"):
        update(batch, [Term(1.0, forgotten, token_mean)])
    constant_term = Term(
        1.0, lambda ref_log_prob, mask: reinforce(ref_log_prob, ref_log_prob, mask), token_mean
    )  # of nothing trained
    _, (with_it,) = update(batch, [constant_term, Term(1.0, reinforce, token_mean)], given=advantages(batch))
    terms = [Term(1.0, reinforce, token_mean), Term(2.0, row_mean, sequence_mean)]
    _, (mixed,) = update(batch, terms, given=advantages(batch))
    apart = [update(batch, [t], given=advantages(batch))[1][0] for t in terms]
    assert torch.allclose(mixed, apart[0] + apart[1], atol=1e-13) and torch.allclose(with_it, apart[0], atol=1e-13)


@pytest.mark.parametrize("terms", [*STEP_TERMS, [Term(2.0, row_mean, sequence_mean)]])
@pytest.mark.parametrize("micro_rows", [1, 2, 4])
def test_micro_batches_have_the_gradient_of_the_whole(terms: list[Term], micro_rows: int) -> None:
    batch = sampled()
    assert len(batch.rollouts.mask.sum(1).unique()) >= 3  # of unequal lengths, or this would show nothing
    batch.rollouts.weight[:] = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 0.25, 3.0, 1.0])
    whole, (gradient,) = update(batch, terms, given=advantages(batch))
    parts, (cut,) = update(batch, terms, given=advantages(batch), micro_rows=micro_rows)
    assert gradient.abs().max() > 1e-3 and (gradient - cut).abs().max() < 1e-10
    assert whole.keys() == parts.keys() and parts == pytest.approx(whole, rel=1e-10)


def tournament() -> Batch:
    """Rows are in several pairs, and one pair was not judged."""
    first, second = torch.tensor([0, 0, 1, 4, 8, 2]), torch.tensor([1, 2, 2, 5, 3, 7])
    target = torch.tensor([1.0, 0.0, 0.5, 0.75, torch.nan, 1.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
    return replace(sampled(), comparisons=Comparisons(first, second, target, weight=weight))


@pytest.mark.parametrize("micro_rows", [1, 2, 3])
def test_micro_batches_of_pairs_have_the_gradient_of_the_whole(micro_rows: int) -> None:
    batch = tournament()
    terms = [Term(1.0, dpo, pair_mean), Term(0.3, negative_log_likelihood, token_mean)]
    given = {"ref_log_prob": advantages(batch)["ref_log_prob"]}
    whole, (gradient,) = update(batch, terms, given=given)
    parts, (cut,) = update(batch, terms, given=given, micro_rows=micro_rows)
    assert gradient.abs().max() > 1e-3 and (gradient - cut).abs().max() < 1e-10
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-10)


def test_the_loss_of_pairs_and_of_steps_beside_them_is_what_the_functions_say() -> None:
    batch = tournament()
    c, r, policy = batch.comparisons, batch.rollouts, table()
    assert c is not None
    given = {"ref_log_prob": advantages(batch)["ref_log_prob"]}
    metrics, _ = update(
        batch, [Term(1.0, dpo, pair_mean), Term(0.3, negative_log_likelihood, token_mean)], given=given, micro_rows=2
    )
    log_prob = policy.evaluate(r, frozenset({"log_prob"}))["log_prob"].detach()
    counts = torch.tensor([0, 1, 2, 3])  # judged, and of a weight above 0
    loss = dpo(log_prob, given["ref_log_prob"], r.mask, c.first[counts, 0], c.second[counts, 0], c.target[counts])
    rows = torch.tensor([0, 1, 2, 4, 5, 7])  # each once, although 0, 1 and 2 are in two pairs
    assert metrics["loss/dpo"] == pytest.approx((loss.value * c.weight[counts]).mean().item(), rel=1e-12)
    nll = -(log_prob * r.mask)[rows].sum() / r.mask[rows].sum()
    assert metrics["loss/negative_log_likelihood"] == pytest.approx(nll.item(), rel=1e-12)
    assert metrics["loss"] == pytest.approx(metrics["loss/dpo"] + 0.3 * nll.item(), rel=1e-12)


def test_the_gradient_is_that_of_the_loss_written_by_hand() -> None:
    batch, policy = sampled(), table()
    given = advantages(batch)
    _, (gradient,) = update(batch, [Term(2.0, reinforce, token_mean)], given=given)
    log_prob = policy.evaluate(batch.rollouts, frozenset({"log_prob"}))["log_prob"]
    mask = batch.rollouts.mask
    (-2 * (given["advantage"] * log_prob)[mask].sum() / mask.sum()).backward()
    assert policy.logits.grad is not None
    assert torch.allclose(gradient[: policy.logits.numel()], policy.logits.grad.flatten(), atol=1e-14)


def only(rows: list[int]):
    return lambda rollouts, scores: torch.isin(torch.arange(len(rollouts)), torch.tensor(rows))


def without(batch: Batch, rows: list[int]) -> Batch:
    return Batch(batch.rollouts.rows([n for n in range(len(batch.rollouts)) if n not in rows]))


@pytest.mark.parametrize("reduction", [token_mean, sequence_mean, constant(4.0)])
@pytest.mark.parametrize("weight", [0.0, torch.nan])
def test_a_row_of_no_weight_is_as_if_it_were_not_there(reduction, weight: float) -> None:
    batch = sampled()
    smaller = without(batch, [0, 5])
    batch.rollouts.weight[[0, 5]] = weight
    terms = [Term(1.0, negative_log_likelihood, reduction)]
    metrics, (gradient,) = update(batch, terms)
    expected, (smaller_gradient,) = update(smaller, terms)
    assert torch.allclose(gradient, smaller_gradient, atol=1e-14) and metrics == pytest.approx(expected)


def test_a_term_sees_its_rows_only() -> None:
    batch = sampled()
    rows = [1, 2, 6]
    metrics, (gradient,) = update(batch, [Term(1.0, negative_log_likelihood, token_mean, rows=only(rows))], micro_rows=2)
    expected, (other,) = update(Batch(batch.rollouts.rows(rows)), [Term(1.0, negative_log_likelihood, token_mean)])
    assert torch.allclose(gradient, other, atol=1e-14)
    assert metrics["loss/negative_log_likelihood"] == pytest.approx(expected["loss"])


def test_a_pair_counts_if_both_its_rows_do() -> None:
    batch = tournament()
    given = {"ref_log_prob": advantages(batch)["ref_log_prob"]}
    some, _ = update(batch, [Term(1.0, dpo, pair_mean, rows=only([0, 2, 4, 5]))], given=given)
    c = batch.comparisons
    assert c is not None
    at = torch.tensor([1, 3])
    kept = Comparisons(c.first[at], c.second[at], c.target[at], weight=c.weight[at])
    alone, _ = update(replace(batch, comparisons=kept), [Term(1.0, dpo, pair_mean)], given=given)
    assert some["loss"] == pytest.approx(alone["loss"], rel=1e-12)
    for nothing in (0.0, torch.nan):  # the same pairs are left when the rows weigh nothing
        batch.rollouts.weight[[1, 7, 3]] = nothing
        weighed, (gradient,) = update(batch, [Term(1.0, dpo, pair_mean)], given=given)
        assert weighed["loss"] == pytest.approx(alone["loss"], rel=1e-12) and gradient.isfinite().all()


def test_nan_outside_the_mask_reaches_nothing() -> None:
    batch = sampled()
    given = advantages(batch)
    mask = batch.rollouts.mask.clone()
    mask[3] = False
    hollow = {**given, "advantage": torch.where(mask, given["advantage"], torch.nan), "mask": mask}
    _, (gradient,) = update(batch, [Term(1.0, clipped_surrogate, token_mean)], given=hollow)
    _, (expected,) = update(batch, [Term(1.0, clipped_surrogate, token_mean, rows=only([0, 1, 2, 4, 5, 6, 7, 8]))], given=given)
    assert torch.allclose(gradient, expected, atol=1e-14)


def test_nothing_that_counts_is_no_step_and_no_number() -> None:
    batch = sampled()
    nothing = {**advantages(batch), "mask": torch.zeros_like(batch.rollouts.mask)}
    assert update(batch, [Term(1.0, reinforce, token_mean)], given=nothing) == ({}, [])
    terms = [Term(1.0, reinforce, token_mean, rows=only([])), Term(1.0, entropy_bonus, token_mean)]
    metrics, gradients = update(batch, terms, given=advantages(batch))
    assert len(gradients) == 1 and "loss/reinforce" not in metrics and metrics["loss"] == metrics["loss/entropy_bonus"]


def test_rows_are_dealt_in_order_to_minibatches_each_with_its_own_count() -> None:
    batch = sampled()
    metrics, gradients = update(batch, [Term(1.0, negative_log_likelihood, token_mean)], updates=2, rounds=3)
    halves = [Batch(batch.rollouts.rows(range(5))), Batch(batch.rollouts.rows(range(5, 9)))]
    alone = [update(h, [Term(1.0, negative_log_likelihood, token_mean)]) for h in halves]
    assert len(gradients) == 6
    for i, gradient in enumerate(gradients):  # lr is 0: each pass is the same
        assert torch.allclose(gradient, alone[i % 2][1][0], atol=1e-14)
    assert metrics["loss"] == pytest.approx((alone[0][0]["loss"] + alone[1][0]["loss"]) / 2)
    assert metrics["grad_norm"] == pytest.approx(sum(g.norm().item() for g in gradients) / 6)


def test_more_updates_than_rows_are_as_many_as_there_are_rows() -> None:
    _, gradients = update(sampled(3), [Term(1.0, negative_log_likelihood, token_mean)], updates=8)
    assert len(gradients) == 3


def test_later_steps_see_the_policy_that_the_earlier_made() -> None:
    batch = sampled()
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    metrics, gradients = update(batch, terms, given=advantages(batch), rounds=2, lr=0.5)
    assert metrics["ratio"] != pytest.approx(1.0, abs=1e-6) and not torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_objectives_metrics_are_sums_over_counts_of_all_that_was_seen() -> None:
    batch = sampled()
    entropy = table().evaluate(batch.rollouts, frozenset({"entropy"}))["entropy"][batch.rollouts.mask].mean().item()
    metrics, _ = update(batch, [Term(0.0, entropy_bonus, sequence_mean)], micro_rows=2, updates=2)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-12)


def test_schedules_of_weight_rate_and_hyper_parameters_are_read_at_the_step() -> None:
    batch, seen = sampled(), []

    def tempered(log_prob: Tensor, mask: Tensor, *, power: float) -> Loss:
        seen.append(power)
        return negative_log_likelihood(log_prob, mask)

    term = Term(lambda step: 10.0 * step, partial(tempered, power=lambda step: step + 0.5), token_mean)
    metrics, (gradient,) = update(batch, [term], step=3)
    _, (one,) = update(batch, [Term(1.0, negative_log_likelihood, token_mean)])
    assert seen == [3.5] and torch.allclose(gradient, 30 * one, atol=1e-12)
    assert metrics["loss"] == pytest.approx(30 * metrics["loss/tempered"])


def test_two_terms_of_one_objective_have_names_of_their_own() -> None:
    batch = sampled()
    terms = [Term(1.0, partial(kl_penalty, estimator=k), token_mean) for k in ("k2", "k3")]
    metrics, _ = update(batch, terms, given=advantages(batch))
    assert metrics["loss"] == pytest.approx(metrics["loss/kl_penalty"] + metrics["loss/kl_penalty_2"])
    assert metrics["loss/kl_penalty"] != metrics["loss/kl_penalty_2"]


@pytest.mark.parametrize("kind", ["wrong unit", "no pairs", "not finite"])
def test_mistakes_are_named(kind: str) -> None:
    batch = sampled()
    given = advantages(batch)
    if kind == "wrong unit":
        with pytest.raises(ExpressionError, match="token_mean: the loss should be per step, got one per pair"):
            update(tournament(), [Term(1.0, dpo, token_mean)], given=given)
    elif kind == "no pairs":
        with pytest.raises(InputError, match=r"negative_log_likelihood: a loss per pair needs comparisons.*stage `test`"):
            update(batch, [Term(1.0, negative_log_likelihood, pair_mean)])
    else:
        given["advantage"][:] = torch.inf
        with pytest.raises(GuerdonError, match="stage `test`, step 0: expected a finite loss, got"):
            update(batch, [Term(1.0, reinforce, token_mean)], given=given)


# ---- steps as rows of their own


class Linear:
    """Logits of two actions, linear in the step field ``x`` [N, T, 2]: reads nothing of other steps."""

    outputs = frozenset({"log_prob", "entropy"})

    def __init__(self) -> None:
        self.weight = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=torch.float64, requires_grad=True)
        self.sizes, self.seen = list[tuple[int, ...]](), list[Tensor]()

    def evaluate(self, rollouts: Any, want: frozenset[str]) -> dict[str, Tensor]:
        self.sizes.append(tuple(rollouts.action.shape))
        log_probs = (rollouts.fields["x"].values @ self.weight).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return {"log_prob": log_probs.gather(-1, rollouts.action[..., None])[..., 0], "entropy": entropy}

    def accumulate(self, outputs: Any, gradients: Any) -> None:
        torch.autograd.backward([outputs[k] for k in gradients], list(gradients.values()))

    def step(self, lr: float) -> dict[str, float]:
        self.seen.append(self.weight.grad.clone())
        self.weight.grad = None
        return {}


def of_steps(by: str, updates: int = 1, shuffle: bool = False, rounds: int = 1, seed: int = 0) -> Linear:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 5, 2, generator=g, dtype=torch.float64)
    mask = torch.rand(4, 5, generator=g) < 0.7
    old = torch.full((4, 5), 0.5, dtype=torch.float64).log()
    rollouts = Rollouts(torch.randint(0, 2, (4, 5), generator=g), mask, list("aabb"), log_prob=old).with_field("x", "step", x)
    rollouts = rollouts.replace(weight=torch.tensor([1.0, 2.0, 0.0, 1.0]))
    policy, ingredients = Linear(), Ingredients(rollouts)
    ingredients["advantage"] = torch.randn(4, 5, generator=g, dtype=torch.float64)
    terms = [Term(1.0, clipped_surrogate, token_mean), Term(0.1, entropy_bonus, token_mean)]
    one = Stage("test", 1, NoSource(), terms, updates=updates, by=by, shuffle=shuffle, rounds=rounds, lr=0.0)
    Update(one, Batch(rollouts), None, ingredients, policy, policy, 0, seed).run()
    return policy


def test_steps_as_rows_have_the_gradient_of_whole_rows() -> None:
    whole, apart = of_steps("row"), of_steps("step")
    assert whole.sizes == [(4, 5)] and apart.sizes[0][1] == 1
    assert torch.allclose(whole.seen[0], apart.seen[0], rtol=1e-12)


def test_shuffled_steps_are_a_partition_that_depends_on_seed_and_round() -> None:
    plain, dealt = of_steps("step", 4), of_steps("step", 4, shuffle=True, rounds=2)
    assert [n for n, _ in dealt.sizes] == 2 * [n for n, _ in plain.sizes]
    again, other = of_steps("step", 4, shuffle=True, rounds=2), of_steps("step", 4, shuffle=True, rounds=2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(dealt.seen, again.seen, strict=True))
    assert not torch.allclose(dealt.seen[0], other.seen[0]) and not torch.allclose(dealt.seen[0], dealt.seen[4])
    rows = of_steps("row", 2, shuffle=True, rounds=3)
    assert {n for n, _ in rows.sizes} == {2} and not torch.allclose(rows.seen[0], rows.seen[2])
