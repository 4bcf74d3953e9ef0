# SPDX-License-Identifier: Apache-2.0
"""Evidence: what can be concluded from scores of several seeds. A method here takes scores [agents, seeds] and says which
differences are real, at a stated chance of a false claim; it trains nothing and does not care where the scores come from.
"""
