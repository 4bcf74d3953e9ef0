# SPDX-License-Identifier: Apache-2.0
"""Control: agents that act in environments.

A method here says how an agent explores, what its policy is made of, or how it learns from data that others left behind. Rows are
what the agent did in environments (``sampling/environments.py``) or in a data set; rewards, credit and objectives are shared.
"""
