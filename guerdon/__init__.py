# SPDX-License-Identifier: Apache-2.0
"""guerdon: the reward is the object you work on. Compose it, learn it, check it, train with it."""
