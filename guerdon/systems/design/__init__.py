# SPDX-License-Identifier: Apache-2.0
"""Design: methods that search for behaviours and rewards at once, by selection instead of gradients.

A system here is a `Learning` whose lines tell the best reward found and how much of the behaviour space was visited.
"""
