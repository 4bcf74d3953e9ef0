# SPDX-License-Identifier: Apache-2.0
"""Training: recipes, the loop that runs them, and what is told about it."""
