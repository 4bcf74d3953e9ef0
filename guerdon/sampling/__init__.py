# SPDX-License-Identifier: Apache-2.0
"""Sampling: where rollouts come from when a policy isn't alone."""
