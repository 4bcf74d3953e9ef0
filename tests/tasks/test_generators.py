# SPDX-License-Identifier: Apache-2.0
"""Data and rewards of the generators: eight modes, digits."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from guerdon.tasks import densities, digits


def test_modes_are_where_they_are_said_to_be() -> None:
    points, label = densities.sample_modes(8000, seed=3)
    for k in range(densities.MODES):
        mine = points[label == k]
        assert mine.mean(0).tolist() == pytest.approx(densities.centres()[k].tolist(), abs=0.03)
        assert mine.std(0).tolist() == pytest.approx([densities.SPREAD] * 2, abs=0.03)


def test_confused_labels_are_any_mode() -> None:
    points, label = densities.sample_modes(8000, seed=3, confusion=0.5)
    nearest = (points[:, None] - densities.centres()).norm(dim=-1).argmin(-1)
    assert (nearest == label).float().mean().item() == pytest.approx(0.5 + 0.5 / 8, abs=0.02)
    assert torch.equal(points, densities.sample_modes(8000, seed=3)[0])


def test_the_probability_of_a_mode_is_bayes_rule() -> None:
    means = densities.centres(torch.float64)
    each = MultivariateNormal(means, densities.SPREAD**2 * torch.eye(2, dtype=torch.float64))
    mixture = MixtureSameFamily(Categorical(torch.full((8,), 1 / 8, dtype=torch.float64)), each)
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint = each.log_prob(points[:, None]) - torch.tensor(8.0).log()
    expected = (joint - mixture.log_prob(points)[:, None]).exp()
    found = torch.stack([densities.mode_probability(points, torch.full((50,), k)) for k in range(8)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_roundness_of_points() -> None:
    angle = torch.linspace(0, 6, 7)
    on = densities.RADIUS * torch.stack([angle.cos(), angle.sin()], -1)
    assert densities.roundness(on).tolist() == pytest.approx([1.0] * 7, abs=1e-5)
    assert densities.roundness(torch.zeros(2)).item() < 1e-10


def test_the_digits_classifier_is_scikit_learns() -> None:
    """The same convex problem: scikit-learn's C is 1 over the sum of penalties."""
    from sklearn.linear_model import LogisticRegression

    pixels, labels = digits.images()
    pixels, labels, held_out = pixels[:600], labels[:600], pixels[600:1000]
    found = digits.classifier(pixels, labels, penalty=1e-2)
    theirs = LogisticRegression(C=1 / (1e-2 * 600), max_iter=2000, tol=1e-8).fit(pixels.double().numpy(), labels.numpy())
    expected = torch.tensor(theirs.predict_proba(held_out.double().numpy()), dtype=torch.float32)
    mine = torch.stack([found(held_out, torch.full((400,), k)) for k in range(10)], 1)
    torch.testing.assert_close(mine, expected, rtol=0.02, atol=0.005)


def test_roundness_of_ink_does_not_depend_on_where_and_which_way_it_lies() -> None:
    image = torch.full((8, 8), -1.0)
    image[1:3, 1:6] = torch.tensor([[1.0, 0.5, 0.0, 1.0, 1.0], [0.2, 1.0, 1.0, 0.1, 0.4]])
    same = [image, image.roll((3, 2), (0, 1)), image.rot90(), image.T, image.flip(0)]
    found = torch.stack([digits.roundness(x.flatten()) for x in same])
    torch.testing.assert_close(found, found[0].expand(5))
    assert 0 < found[0] < 1
    assert digits.roundness(torch.full((64,), -1.0)).item() == 0


def test_a_line_is_not_round_whichever_way_it_runs() -> None:
    diagonal, level = 2 * torch.eye(8) - 1, torch.full((8, 8), -1.0)
    level[4] = 1
    found = [digits.roundness(x.flatten()).item() for x in (diagonal, diagonal.flip(1), level, level.T)]
    assert found == pytest.approx([0.0] * 4, abs=1e-6)


def test_a_zero_is_rounder_than_a_one() -> None:
    pixels, labels = digits.images()
    assert digits.roundness(pixels[labels == 0]).mean() > digits.roundness(pixels[labels == 1]).mean() + 0.1


def test_images_are_drawn_side_by_side() -> None:
    pixels, _ = digits.images()
    text = digits.drawn_as_text(pixels[:3], across=2)
    assert [len(line) for line in text.splitlines()] == [34] * 8 + [0] + [16] * 8
    assert digits.drawn_as_text(torch.ones(1, 64)).splitlines()[0] == "@" * 16
