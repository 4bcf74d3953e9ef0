# SPDX-License-Identifier: Apache-2.0
"""Methods about reward models: how they are learnt, what they may be trusted with, and how several of them are weighed.

A file here gives a reward, a part that learns while the policy does, or a rule that combines components, and an arm in which a
policy is trained on it while a gold measure looks on.
"""
