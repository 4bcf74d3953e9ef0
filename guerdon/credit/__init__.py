# SPDX-License-Identifier: Apache-2.0
"""Credit: who gets how much of the reward. Pure functions from a reward per step to an advantage per step.

Shapes are ``[N, T]``: N rows of at most T decision steps, whatever a step is (token, action, denoising step). Nothing is detached
or written to and the dtype is kept. Parameters without a default are ingredients the caller supplies by name; those with a
default are hyper-parameters, numbers or tensors. Three rules hold everywhere:

1.  A step where ``mask`` is False is skipped: it neither decays nor receives, its advantage is 0, its tensors are not read.
2.  A ``reward`` that is not finite (NaN: the checker failed or abstained) makes exactly those advantages NaN whose return it
    would enter. It is left out of every statistic and never becomes 0; whoever computes the loss leaves the NaN steps out.
3.  Nothing crosses from one ``episode`` to another.
"""

from guerdon.credit.combine import variance_shares, weighted_sum
from guerdon.credit.groups import center_by_group, group_relative, whiten
from guerdon.credit.returns import gae, lambda_return, return_to_go

__all__ = [
    "center_by_group",
    "gae",
    "group_relative",
    "lambda_return",
    "return_to_go",
    "variance_shares",
    "weighted_sum",
    "whiten",
]
