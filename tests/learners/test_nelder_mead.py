# SPDX-License-Identifier: Apache-2.0
"""The simplex against SciPy's, move by move, and taken up again from its values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from guerdon.learners.nelder_mead import NelderMead

CORNERS = [[-1.2, 1.0], [0.0, 1.3], [-0.5, 2.0]]


def rosenbrock(x) -> float:
    return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)


def run(search: NelderMead, times: int) -> list[float]:
    for _ in range(times):
        search.tell(rosenbrock(search.point))
    return search.values


def test_it_makes_the_moves_of_scipy() -> None:
    theirs: list[float] = []

    def noted(x) -> float:
        theirs.append(rosenbrock(x))
        return theirs[-1]

    minimize(noted, CORNERS[0], method="Nelder-Mead", options={"initial_simplex": np.array(CORNERS), "maxfev": 150})
    assert len(theirs) > 100 and run(NelderMead(CORNERS), len(theirs)) == pytest.approx(theirs, rel=1e-9)


def test_it_goes_on_from_its_state() -> None:
    whole, first = NelderMead(CORNERS), NelderMead(CORNERS)
    run(whole, 40)
    run(first, 17)
    second = NelderMead(CORNERS)
    second.load_state_dict(first.state_dict())
    run(second, 23)
    assert second.values == whole.values and (second.best == whole.best).all() and (second.point == whole.point).all()
