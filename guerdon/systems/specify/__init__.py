# SPDX-License-Identifier: Apache-2.0
"""Specified rewards: methods that work on what a designer wrote down, and keep it from meaning something else than was meant.

A file here takes the reward that counts and what was added to it by hand (a bonus, a distance, a penalty) and says how much of
the addition is used, where and for how long. It gives a reward or a learner that uses one; what counts is measured apart.
"""
