# SPDX-License-Identifier: Apache-2.0
"""The volume of what was measured so far."""

import pytest

from guerdon.training.front import Front


def test_the_volume_grows_by_what_is_new_and_survives_a_resume() -> None:
    points = iter([{"right": 0.5, "short": 1.0}, {"right": 0.25, "short": 0.5}, {"right": 1.0, "short": 0.5}])
    front = Front(5, lambda policy: next(points), [0.0, 0.25])
    found = [front.measure(None, step) for step in (0, 5)]
    assert found[0] == {"eval/hypervolume": 0.375, "eval/right": 0.5, "eval/short": 1.0}
    assert found[1]["eval/hypervolume"] == 0.375
    resumed = Front(5, lambda policy: next(points), [0.0, 0.25])
    resumed.load_state_dict(front.state_dict())
    assert resumed.measure(None, 10)["eval/hypervolume"] == pytest.approx(0.375 + 0.5 * 0.25)
