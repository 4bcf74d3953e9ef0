# SPDX-License-Identifier: Apache-2.0
"""PRIME's credit against its formulas written out, and the classifier in the loop that trains with it."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.credit import return_to_go, whiten
from guerdon.systems.dense.prime import prime, prime_advantage, process_advantage, ranked, success

MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
GROUP = torch.tensor([5, 5, 5, 2, 2, 2])
REWARD = torch.tensor(
    [[0.2, -0.1, 0.4], [0.3, -0.9, 0], [0, 0.1, 0.5], [-0.2, 0.6, 0.1], [0.7, 0, 0], [-0.4, -0.3, 0.2]], dtype=torch.float64
)


def togo(reward: torch.Tensor, mask: torch.Tensor = MASK) -> torch.Tensor:
    return return_to_go(reward, mask, torch.where(mask, 0, -1))


def written_out(reward: torch.Tensor) -> list[list[float]]:
    """r'_t = r_t K/(K-1) - Σ_j m_j/(K-1), summed from t on, all divided by the largest return-to-go of the batch."""
    largest = togo(reward).abs().max().item()
    rows = [[x / largest for x, m in zip(r, ms, strict=True) if m] for r, ms in zip(reward.tolist(), MASK.tolist(), strict=True)]
    out = []
    for i, row in enumerate(rows):
        members = [j for j in range(len(rows)) if GROUP[j] == GROUP[i]]
        k, means = len(members), sum(sum(rows[j]) / len(rows[j]) for j in members)
        own = [x * k / (k - 1) - means / (k - 1) for x in row]
        sums = iter([sum(own[t:]) for t in range(len(own))])
        out.append([next(sums) if m else 0.0 for m in MASK[i].tolist()])
    return out


def test_the_process_part_is_the_formula_written_out() -> None:
    found = process_advantage(togo(REWARD), MASK, GROUP)
    torch.testing.assert_close(found, torch.tensor(written_out(REWARD), dtype=torch.float64))


def test_the_scale_of_the_process_does_not_matter_and_its_sign_does() -> None:
    found = process_advantage(togo(REWARD), MASK, GROUP)
    torch.testing.assert_close(process_advantage(togo(1e-4 * REWARD), MASK, GROUP), found)
    torch.testing.assert_close(process_advantage(togo(-REWARD), MASK, GROUP), -found)
    assert not process_advantage(togo(0 * REWARD), MASK, GROUP).any()


def test_leave_one_out_differs_from_the_papers_as_the_file_says() -> None:
    """Paper: r_t minus the mean of the others' m_j; the code's is (r_t - m_i) / (K - 1) more, before the sum from t on."""
    scaled = REWARD / togo(REWARD).abs().max()
    mean = torch.where(MASK, scaled, 0).sum(1) / MASK.sum(1)
    others = torch.stack([mean[(g == GROUP) & (torch.arange(6) != i)].mean() for i, g in enumerate(GROUP)])
    paper = togo(scaled - others[:, None])
    extra = togo((scaled - mean[:, None]) / 2)
    torch.testing.assert_close(process_advantage(togo(REWARD), MASK, GROUP), paper + extra)


def test_prompts_outside_the_band_take_no_part_in_any_statistic() -> None:
    """The second group is right throughout: its rows are NaN, and the first group's are as if it were not there."""
    outcome = togo(torch.where(MASK & (togo(MASK.double()) == 1), torch.tensor([1.0, 0, 0, 1, 1, 1])[:, None].double(), 0))
    louder = torch.where((GROUP == 2)[:, None], 100 * REWARD, REWARD)
    found = prime_advantage({"outcome": outcome, "process": togo(louder)}, MASK, GROUP)
    assert found[3:][MASK[3:]].isnan().all()
    few = {"outcome": outcome[:3], "process": togo(REWARD[:3], MASK[:3])}
    torch.testing.assert_close(found[:3], prime_advantage(few, MASK[:3], GROUP[:3]))
    assert whiten(found, MASK)[:3][MASK[:3]].isfinite().all()


def test_the_outcome_part_is_leave_one_out_of_whole_rows() -> None:
    outcome = torch.tensor([1.0, 0, 0, 1, 1, 0])[:, None].double().expand(6, 3) * MASK
    found = prime_advantage({"outcome": outcome}, MASK, GROUP)
    expected = torch.tensor([1.0, -0.5, -0.5, 0.5, 0.5, -1.0]).double()
    torch.testing.assert_close(found, expected[:, None] * MASK)


def test_a_row_that_failed_is_in_no_baseline() -> None:
    failed = REWARD.clone()
    failed[1, 1] = math.nan
    found = process_advantage(togo(failed), MASK, GROUP)
    assert found[1][MASK[1]].isnan().all()
    without = [0, 2, 3, 4, 5]
    torch.testing.assert_close(found[without], process_advantage(togo(REWARD)[without], MASK[without], GROUP[without]))
    alone = process_advantage(togo(REWARD), MASK, torch.arange(6))
    assert alone[MASK].isnan().all()


def test_the_first_error_is_ranked_among_the_right_steps_before_it() -> None:
    assert ranked([1.0, 2.0, 1.0], [True, True, False]) == 0.75
    assert ranked([0.0, 1.0], [False, True]) is None


def test_the_stage_learns_to_tell_right_from_wrong(tmp_path) -> None:
    """Two letters, one right: after a few batches the classifier pays the right one more, and the run resumes to the same."""
    pytest.importorskip("transformers")
    from guerdon.policies.language import LanguagePolicy
    from guerdon.protocols import Context, Sampling
    from guerdon.rewards import reward
    from guerdon.training.loop import train
    from guerdon.training.recipe import Recipe
    from guerdon.training.sources import Prompts

    @reward(bounds=(0, 1))
    def is_a(completion: str) -> bool:
        return completion == "a"

    def policy(reference: str = "none") -> LanguagePolicy:
        return LanguagePolicy.tiny(["a", "b", ":"], width=8, layers=1, heads=2, max_length=8, seed=0, reference=reference)

    def recipe(steps: int) -> Recipe:
        source = Prompts([Context("t", ":")], 1, 32, Sampling(max_new_tokens=1))
        stage = prime(source, steps, is_a, lambda: policy("copy"), lr=0.0, model_lr=0.02, model_updates=2, low=0.0, high=1.0)
        return Recipe("r", policy, [stage], checkpoint_every=2, save_rollouts_every=0)

    whole = recipe(6)
    train(whole, tmp_path / "whole")
    train(recipe(4), tmp_path / "parts")
    resumed = recipe(6)
    train(resumed, tmp_path / "parts")
    process = [next(n for n in r.stages[0].reward.nodes() if n.name == "process") for r in (whole, resumed)]
    rollouts = policy().encode([":", ":"], ["a", "b"])
    paid = [p.compute(rollouts, [], 0).values[:, 0] for p in process]
    assert paid[0][0] > 0.01 > -0.01 > paid[0][1]
    assert torch.equal(paid[0], paid[1])


def test_success_reads_the_answer() -> None:
    assert success(completions=["+5=5#5", "+5=6#6"], prompts=["5:", "5:"]).total.values.tolist() == [[1], [0]]
