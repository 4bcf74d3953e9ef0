# SPDX-License-Identifier: Apache-2.0
"""Methods that change how a policy is improved: what a group's rewards become as advantages, what is clipped, what is sampled.

A file here gives a reward transform, a credit rule or an objective, and an arm that puts it into the same recipe as its baseline.
"""
