# SPDX-License-Identifier: Apache-2.0
"""The editing task, played by hand."""

import pytest

pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env

from guerdon.tasks.editing import ACTIONS, EDITED, EDITS, EMPTY, LIMIT, LINES, RESOLVED, THINGS, Editing


def played(*said: str, seed: int = 0):
    env = Editing()
    env.reset(seed=seed)
    fill = {"RIGHT": f"EDIT {env.line} {THINGS[env.thing]}", "WRONG": f"EDIT {(env.line + 1) % LINES} {THINGS[env.thing]}"}
    return [env.step(ACTIONS.index(fill.get(a, a))) for a in said]


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(Editing(), skip_render_check=True)


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        (["SUBMIT"], EMPTY),
        (["VIEW 0", "SUBMIT"], EMPTY),
        (["WRONG", "SUBMIT"], EDITED),
        (["RIGHT", "WRONG", "SUBMIT"], EDITED),
        (["WRONG", "RIGHT", "SUBMIT"], RESOLVED),
    ],
)
def test_how_far_an_episode_got(said: list[str], progress: int) -> None:
    *before, (_, reward, done, cut, info) = played(*said)
    assert (info["progress"], info["resolved"], reward, done, cut) == (
        progress,
        progress == RESOLVED,
        progress == RESOLVED,
        True,
        False,
    )
    assert all(step[4]["progress"] == 0 and step[4]["valid"] for step in before)


def test_an_episode_that_goes_on_is_cut_and_got_nowhere() -> None:
    steps = played(*["RIGHT"] * LIMIT)
    assert [s[3] for s in steps] == [False] * (LIMIT - 1) + [True]
    assert steps[-1][4] == {"valid": 1, "progress": 0, "resolved": 0} and not steps[-1][2]


def test_what_is_no_command_does_nothing() -> None:
    steps = played("VIEW", "EDIT")
    assert [s[4]["valid"] for s in steps] == [0, 0] and all((s[0] == 0).all() for s in steps)


def test_only_viewing_the_wrong_line_tells_what_it_should_be() -> None:
    env = Editing()
    env.reset(seed=5)
    for line in range(LINES):
        notes, *_ = env.step(ACTIONS.index(f"VIEW {line}"))
        found = notes[LINES : 2 * LINES + len(THINGS)]
        assert found.sum() == (2 if line >= env.line else 0)


def test_every_bug_occurs() -> None:
    env, seen = Editing(), set()
    for seed in range(60):
        env.reset(seed=seed)
        seen.add((env.line, env.thing))
    assert len(seen) == LINES * len(THINGS) == len(EDITS)
