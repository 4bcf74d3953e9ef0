# SPDX-License-Identifier: Apache-2.0
"""The accuracy band."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.credit.band import accuracy_band
from guerdon.errors import ShapeError


def test_edges_are_inside() -> None:
    """A mean of 1/5 in a band that begins at 0.2, and 4/5 where it ends at 0.8; outcomes in single precision."""
    outcome = torch.tensor([1.0, 0, 0, 0, 0, 1, 1, 1, 1, 0])
    group = torch.tensor([0] * 5 + [1] * 5)
    assert accuracy_band(outcome, group).all()
    assert not accuracy_band(outcome, group, low=0.21, high=0.79).any()


def test_all_right_all_wrong_and_failed_groups_are_outside() -> None:
    outcome = torch.tensor([1.0, 1, 0, 0, math.nan, math.nan])
    assert not accuracy_band(outcome, torch.tensor([4, 4, 1, 1, 9, 9])).any()


def test_a_failed_row_does_not_count_as_wrong() -> None:
    outcome, group = torch.tensor([1.0, math.nan, math.nan, 0, 1, math.nan]), torch.tensor([0, 0, 0, 3, 3, 3])
    assert accuracy_band(outcome, group).tolist() == [False, False, False, True, True, True]


def test_a_choice_per_step_is_refused() -> None:
    with pytest.raises(ShapeError, match="outcomes per step instead of per row"):
        accuracy_band(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
