# SPDX-License-Identifier: Apache-2.0
"""Objectives: what to descend on. Pure functions that return a `Loss`, one value per step, row or pair, not yet reduced.

A reduction (`token_mean`, `sequence_mean`, `constant`, `pair_mean`) makes the scalar, divided by a count of the whole batch, so
that micro-batches add up to it. Parameters without a default are ingredients the caller supplies by name; those with a default
are hyper-parameters, numbers or tensors. Nothing is detached (the caller detaches advantages) except metrics, nothing is written
to, and the dtype is kept. What stands in masked places is not read, NaN included, and its gradient is 0. A NaN in a counted
place, an advantage whose reward failed, makes the loss NaN: the caller takes such steps out of the mask before it counts.

Those that say so (`writes_slope`) give their derivative along with the loss where nothing needs a graph; the others are left to
autograd.
"""

from guerdon.objectives.likelihood import negative_log_likelihood
from guerdon.objectives.loss import Loss, writes_slope
from guerdon.objectives.policy_gradient import clipped_surrogate, reinforce
from guerdon.objectives.preference import bradley_terry, dpo
from guerdon.objectives.reduction import Reduction, constant, pair_mean, sequence_mean, token_mean
from guerdon.objectives.regularise import entropy_bonus, kl_penalty
from guerdon.objectives.value import clipped_value_loss, value_loss

__all__ = [
    "Loss",
    "Reduction",
    "bradley_terry",
    "clipped_surrogate",
    "clipped_value_loss",
    "constant",
    "dpo",
    "entropy_bonus",
    "kl_penalty",
    "negative_log_likelihood",
    "pair_mean",
    "reinforce",
    "sequence_mean",
    "token_mean",
    "value_loss",
    "writes_slope",
]
