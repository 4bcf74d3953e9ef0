# SPDX-License-Identifier: Apache-2.0
"""Rewards: leaves that measure, an algebra that combines them, and the text they are written in.

Reward                   what every one of them is
min_of, max_of, mean_of  of several rewards, unit by unit
linear, constant         weights that change with the training step, or don't
parse, load              text to reward; str() is the way back
oracle                   the true goal: watched and evaluated, never trained on
@reward                  for functions of one's own
checkers                 ready-made ones, in a module of that name
"""

from guerdon.rewards.node import Reward  # isort: skip  # first: the nodes that its operators build are rewards themselves
from guerdon.rewards.algebra import max_of, mean_of, min_of
from guerdon.rewards.function import FunctionReward, reward
from guerdon.rewards.oracle import oracle
from guerdon.rewards.parse import load, parse
from guerdon.rewards.schedule import constant, linear

__all__ = ["FunctionReward", "Reward", "constant", "linear", "load", "max_of", "mean_of", "min_of", "oracle", "parse", "reward"]
