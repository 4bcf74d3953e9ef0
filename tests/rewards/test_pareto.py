# SPDX-License-Identifier: Apache-2.0
"""Dominated volume: by hand, against moocore, and by counting points."""

import pytest
import torch

from guerdon.errors import ShapeError
from guerdon.rewards.pareto import hypervolume, non_dominated


def test_a_cube_with_a_corner_bitten_out() -> None:
    points = torch.tensor([[1.0, 1.0, 0.5], [1.0, 0.5, 1.0], [0.5, 1.0, 1.0]], dtype=torch.float64)
    # a place is outside all three boxes only where all its coordinates exceed 1/2
    assert hypervolume(points, torch.zeros(3, dtype=torch.float64)).item() == 0.875


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_equal_to_moocore(objectives: int) -> None:
    moocore = pytest.importorskip("moocore")
    generator = torch.Generator().manual_seed(objectives)
    for count in (1, 2, 9):
        points = torch.rand(count, objectives, generator=generator, dtype=torch.float64).mul(8).round().div(8)  # with ties
        reference = torch.full((objectives,), 0.2, dtype=torch.float64)
        if objectives == 1:
            expected = max(float(points.max()) - 0.2, 0.0)
        else:
            expected = moocore.hypervolume(points.numpy(), ref=reference.numpy(), maximise=True)
        assert hypervolume(points, reference).item() == pytest.approx(expected, abs=1e-12)


def test_nothing_above_the_reference_is_no_volume() -> None:
    points = torch.tensor([[0.5, 2.0], [3.0, 0.0]])
    assert hypervolume(points, torch.tensor([0.5, 0.0])).item() == 0.0
    assert hypervolume(torch.zeros(0, 2), torch.zeros(2)).item() == 0.0


def test_dominated_points_change_nothing_and_order_does_not_matter() -> None:
    points = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    whole = hypervolume(points, zero).item()
    assert hypervolume(points[non_dominated(points)], zero).item() == pytest.approx(whole, abs=1e-15)
    assert hypervolume(points.flip(0), zero).item() == pytest.approx(whole, abs=1e-15)
    assert hypervolume(torch.cat([points, points * 0.9]), zero).item() == pytest.approx(whole, abs=1e-15)


def test_equal_points_do_not_dominate_each_other() -> None:
    assert non_dominated(torch.ones(3, 2)).tolist() == [True, True, True]


def test_a_reference_of_other_objectives_is_refused() -> None:
    with pytest.raises(ShapeError, match="reference"):
        hypervolume(torch.ones(2, 3), torch.zeros(2))
