# SPDX-License-Identifier: Apache-2.0
"""Verifiable rewards: methods that decide what a checker's verdicts are worth.

A file here takes the verdicts of something that can be run (unit tests, checks of an answer) and says how much each counts, how
partial success and the whole are put together, and what a failed checker does. It gives a reward, or a credit for one, that any
policy and objective can use.
"""
