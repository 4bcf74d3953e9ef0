# SPDX-License-Identifier: Apache-2.0
"""The batched function as a reward, as a user's file would have it."""

from guerdon import reward
from tests.faults.data.faulty import batch

batched = reward(batched=True, bounds=(0, 100))(batch)
