# SPDX-License-Identifier: Apache-2.0
"""Watches during training: what the reward does not read, against the start; proxy against gold; terms that dominate.

watched          a recipe with watches
Watches          the part of a stage that does it
TEXT, CONTROL    quantities of text and of control; images(...) makes those of images
Quantity         one of your own
trend, drift     the tests
"""

from guerdon.audit.watches.attaching import watched
from guerdon.audit.watches.control import CONTROL
from guerdon.audit.watches.images import images
from guerdon.audit.watches.quantities import Quantity, reading
from guerdon.audit.watches.statistics import drift, trend
from guerdon.audit.watches.text import TEXT
from guerdon.audit.watches.watching import Watches

__all__ = ["CONTROL", "TEXT", "Quantity", "Watches", "drift", "images", "reading", "trend", "watched"]
