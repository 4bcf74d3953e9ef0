# SPDX-License-Identifier: Apache-2.0
"""Verdicts on disk: an SQLite file that several processes may read and write at once.

A row is written when its verdict was read, so an interrupted run loses none. The first verdict for a key stays. What was asked is
in the file as a hash only; the verdict and the judge's reason for it are there as text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from guerdon.errors import InputError

SCHEMA = 1
WAIT = 60.0  # seconds for another process to finish its writing
_AT_ONCE = 500  # keys of one query; SQLite allows 999 variables in its oldest builds


class Cache:
    """key -> (what the verdict says, why). The file is made when it is first used; a connection lives for one call only."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def get(self, keys: Sequence[str]) -> dict[str, tuple[Any, str]]:
        found: dict[str, tuple[Any, str]] = {}
        if not self.path.exists():
            return found
        with closing(self._open()) as db:
            for at in range(0, len(keys), _AT_ONCE):
                some = list(keys[at : at + _AT_ONCE])
                marks = ", ".join("?" * len(some))
                rows = db.execute(f"SELECT key, said, why FROM verdicts WHERE key IN ({marks})", some)
                found |= {key: (json.loads(said), why) for key, said, why in rows}
        return found

    def put(self, verdicts: Mapping[str, tuple[Any, str]], model: str) -> dict[str, tuple[Any, str]]:
        """Keep them, all or none; back come the verdicts that are kept, which are another's where that was faster."""
        rows = [(key, json.dumps(said), why, model) for key, (said, why) in verdicts.items()]
        with closing(self._open()) as db, db:
            db.executemany("INSERT OR IGNORE INTO verdicts (key, said, why, model) VALUES (?, ?, ?, ?)", rows)
        return self.get(list(verdicts))

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.path, timeout=WAIT)
            try:
                version = _prepared(db)
            except sqlite3.Error:
                db.close()
                raise
        except sqlite3.Error as error:
            raise InputError(
                f"judge: {self.path} should be a cache of verdicts or a new file, got: {error}. "
                "Usual cause: the path of another file, or of a directory that does not exist."
            ) from error
        if version != SCHEMA:
            db.close()
            raise InputError(f"judge: {self.path} has the layout {version} and this version reads {SCHEMA}; give another file.")
        return db


def _prepared(db: sqlite3.Connection) -> int:
    """The layout of the file; an empty one gets this version's."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "CREATE TABLE IF NOT EXISTS verdicts "
                "(key TEXT PRIMARY KEY, said TEXT NOT NULL, why TEXT NOT NULL, model TEXT NOT NULL) WITHOUT ROWID"
            )
            db.execute(f"PRAGMA user_version = {SCHEMA}")
        return SCHEMA
    return int(version)
