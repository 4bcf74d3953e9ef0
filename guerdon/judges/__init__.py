# SPDX-License-Identifier: Apache-2.0
"""Judges: a language model behind an OpenAI-compatible endpoint as a reward or as a comparator.

judge        a Reward: each answer's score by a rubric, from 0 to 1
judge_pairs  a Comparator: which of two answers is better, asked in both orders
judge_wins   a Reward: how often an answer beats the others of its group, by ``judge_pairs``
tallies      what the judges of a reward asked, got and cost

An answer without a verdict abstains, one whose requests ran out of time is a timeout, one whose requests failed is an error; none
of them is a 0. The standard library does the talking, so there is nothing to install.
"""

from guerdon.judges.absolute import JudgeReward, judge
from guerdon.judges.orders import BothAgree, Orders
from guerdon.judges.pairwise import PairJudge, judge_pairs, judge_wins
from guerdon.judges.tally import Tally, tallies

__all__ = ["BothAgree", "JudgeReward", "Orders", "PairJudge", "Tally", "judge", "judge_pairs", "judge_wins", "tallies"]
