# SPDX-License-Identifier: Apache-2.0
"""Checking rewards: what they promise, what they can be made to pay for, how far apart two of them are."""
