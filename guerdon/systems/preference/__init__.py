# SPDX-License-Identifier: Apache-2.0
"""Methods that learn from which of two is better, without a scalar reward: objectives on pairs, and games between policies.

A file here gives an objective on judged pairs or an update of a policy against an opponent, and an arm that runs it on a game
whose preferences are known exactly.
"""
