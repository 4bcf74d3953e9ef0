# SPDX-License-Identifier: Apache-2.0
"""How well a scorer tells better answers from worse ones: any reward, on lines of preferences in a local file.

read_lines   preferences from JSONL
evaluate     accuracy, best of k, Ties, calibration, biases, consistency and pace of a reward on them, with intervals
write_page   the same as one HTML file

An answer that could not be scored is never counted as a wrong one in silence: its line is left out, and each figure that this
can move is given with such lines counted as wrong beside it.
"""

from guerdon.audit.reward_bench.evaluating import Evaluation, evaluate
from guerdon.audit.reward_bench.lines import Line, read_lines
from guerdon.audit.reward_bench.page import write_page

__all__ = ["Evaluation", "Line", "evaluate", "read_lines", "write_page"]
