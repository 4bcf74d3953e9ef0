# SPDX-License-Identifier: Apache-2.0
"""Learners with loops of their own: from a fixed data set by values (`offline`), from genomes by selection (`evolution`).

They share everything else with the loop of `training`: rollouts, rewards, objectives, policies and their updaters.
"""
