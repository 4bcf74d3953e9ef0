# SPDX-License-Identifier: Apache-2.0
"""Policies: what acts, and learns from gradients with respect to its outputs."""
