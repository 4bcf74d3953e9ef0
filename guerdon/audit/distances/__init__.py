# SPDX-License-Identifier: Apache-2.0
"""How far apart two rewards are, as judged by the policies they lead to; docs/distances.md says which distance means what.

starc, epic, dard            of two rewards of a table, exact
regret, worst_case_regret    what optimising one costs where the other counts
sampled, branching           the same distances from transitions of an environment
agreement                    of two rewards' totals over the same rows
"""

from guerdon.audit.distances.equivalence import redistributed, shaped, unending
from guerdon.audit.distances.metric import dard, epic, starc
from guerdon.audit.distances.minimal import minimal
from guerdon.audit.distances.regret import regret, soundness, worst_case_regret

__all__ = ["dard", "epic", "minimal", "redistributed", "regret", "shaped", "soundness", "starc", "unending", "worst_case_regret"]
