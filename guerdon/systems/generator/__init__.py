# SPDX-License-Identifier: Apache-2.0
"""Generators: images, points and other things that come out of noise in a chain of small steps.

A method here says what each step of the chain is worth or how it explores. The chain is a Rollout whose steps are decisions with
an exact probability (``policies/flow.py``), so a method is a reward on what a step leads to, a credit rule over the steps of a
group, or a schedule of noise; policy, loop and objectives are those of text and control.
"""
