# SPDX-License-Identifier: Apache-2.0
"""Editing: find the one wrong line of a file, put it right, submit. A software agent's episode with nothing in it but its shape.

    VIEW 2      the line is shown; if it is the wrong one, so is what it should be
    EDIT 2 b    line 2 becomes b
    SUBMIT      the episode ends; resolved if the last edit put the wrong line right
    anything else is no command and does nothing

A file has three lines and two things that a line may be. Which line is wrong and what it should be is drawn for each episode. An
agent is shown its notes: what it has viewed, found, and edited last. They do not say how many commands it has given. An episode
that has not submitted is cut after 20.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

LINES, THINGS, LIMIT = 3, "ab", 20
VIEWS = [f"VIEW {line}" for line in range(LINES)]
EDITS = [f"EDIT {line} {thing}" for line in range(LINES) for thing in THINGS]
ACTIONS = [*VIEWS, *EDITS, "SUBMIT", "VIEW", "EDIT"]
"""What an agent may say; the last two are not commands."""

UNSUBMITTED, EMPTY, EDITED, RESOLVED = range(4)
"""How far an episode got: cut, submitted without an edit, with one, with the right one."""

NOTES = gymnasium.spaces.Box(0, 1, (3 * LINES + 2 * len(THINGS),), np.float32)
COMMANDS = gymnasium.spaces.Discrete(len(ACTIONS))
INFO = ("valid", "progress", "resolved")


class Editing(gymnasium.Env):
    """Gymnasium's environment. Its own reward is 1 for a submission that resolves, and 0.

    In the info of a step: ``valid``, whether it was a command; ``progress``, how far the episode got, where it submits, else 0;
    ``resolved``, 1 where it submits the right edit.

    >>> env = Editing(); _ = env.reset(seed=0); env.line, THINGS[env.thing]
    (2, 'b')
    >>> steps = [env.step(ACTIONS.index(a)) for a in ("VIEW 0", "VIEW 2", "EDIT 2 b", "SUBMIT")]
    >>> steps[1][0].astype(int).tolist(), steps[3][1:3], steps[3][4]
    ([1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0], (1.0, True), {'valid': 1, 'progress': 3, 'resolved': 1})
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as the base class declares it

    def __init__(self) -> None:
        self.observation_space, self.action_space = NOTES, COMMANDS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.line, self.thing = (int(self.np_random.integers(n)) for n in (LINES, len(THINGS)))
        self.edit: tuple[int, int] | None = None
        self.given = 0
        self.viewed, self.found, self.fix, self.at, self.put = np.split(
            np.zeros(NOTES.shape, np.float32), np.cumsum([LINES, LINES, len(THINGS), LINES])
        )
        return self._notes(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.given += 1
        said = ACTIONS[int(action)]
        done = said == "SUBMIT"
        if said in VIEWS:
            self._view(VIEWS.index(said))
        elif said in EDITS:
            self._edit(*divmod(EDITS.index(said), len(THINGS)))
        progress = (EMPTY if self.edit is None else RESOLVED if self.edit == (self.line, self.thing) else EDITED) if done else 0
        info = {"valid": int(said not in ("VIEW", "EDIT")), "progress": progress, "resolved": int(progress == RESOLVED)}
        return self._notes(), float(info["resolved"]), done, not done and self.given >= LIMIT, info

    def _view(self, line: int) -> None:
        self.viewed[line] = 1
        if line == self.line:
            self.found[line] = self.fix[self.thing] = 1

    def _edit(self, line: int, thing: int) -> None:
        self.edit = line, thing
        self.at[:], self.put[:] = 0, 0
        self.at[line] = self.put[thing] = 1

    def _notes(self) -> np.ndarray:
        return np.concatenate([self.viewed, self.found, self.fix, self.at, self.put])
