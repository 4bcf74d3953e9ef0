# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from guerdon.tasks.point_maze import COST, DOOR, GOAL, LIMIT, SPEED, PointMaze, demonstrations, moved


def test_it_is_a_gymnasium_environment() -> None:
    check_env(PointMaze(), skip_render_check=True)


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((-0.5, 0.0), (1.0, 0.5), (-0.5 + SPEED, SPEED / 2)),
        ((-0.1, 0.0), (1.0, 0.0), (0.05, 0.0)),  # through the door
        ((-0.1, 0.5), (1.0, 0.0), (-0.001, 0.5)),  # against the wall
        ((0.1, -0.5), (-1.0, 0.0), (0.001, -0.5)),  # from the other side
        ((-0.1, 0.0), (9.0, 0.0), (0.05, 0.0)),  # actions are clipped
        ((0.95, 0.95), (1.0, 1.0), (1.0, 1.0)),
    ],
)
def test_moves(start: tuple[float, float], action: tuple[float, float], end: tuple[float, float]) -> None:
    assert moved(*start, *action) == pytest.approx(end)


def test_where_the_wall_is_crossed_decides_and_not_where_the_step_ends() -> None:
    edge = DOOR - 0.01
    assert moved(-0.01, edge, 1.0, 1.0)[0] > 0 and abs(moved(-0.01, edge, 1.0, 1.0)[1]) > DOOR
    assert moved(-0.14, edge, 1.0, 1.0)[0] < 0


def test_an_episode_pays_for_the_goal_and_costs_time() -> None:
    env = PointMaze()
    env.reset(seed=0)
    env.x, env.y = GOAL[0] - 0.3, GOAL[1]
    assert env.step(np.array([0.5, 0.0]))[1:4] == (-COST, False, False)
    assert env.step(np.array([1.0, 0.0]))[1:4] == (1 - COST, True, False)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(LIMIT)]
    assert ends[-1] == (False, True) and not any(a or b for a, b in ends[:-1])


def test_demonstrators_arrive_more_often_than_not_and_their_data_depend_on_the_seed_alone() -> None:
    seen, done = demonstrations(2000, seed=1)
    assert all((a == b).all() for a, b in zip(demonstrations(2000, seed=1), (seen, done), strict=True))
    assert not (demonstrations(2000, seed=2)[0] == seen).all()
    assert (seen[:, 0] > 0).float().mean() > 0.2  # in the other room
    assert done.abs().max() <= 1
