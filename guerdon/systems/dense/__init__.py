# SPDX-License-Identifier: Apache-2.0
"""Dense rewards: methods that make feedback speak more often than once an episode.

A file here says where reward falls inside an episode (tokens, steps, segments, turns), what it is made of when the outcome alone
is known, and how it is kept from being farmed. It gives a reward, or a credit for one, that any policy and objective can use.
"""
