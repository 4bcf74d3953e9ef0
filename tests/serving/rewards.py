# SPDX-License-Identifier: Apache-2.0
"""The functions that are served in tests, as rewards."""

from __future__ import annotations

from guerdon import reward
from tests.serving import served

size = reward(bounds=(0, 10))(served.size)
matches, traps, anything = (reward(f) for f in (served.matches, served.traps, served.anything))
