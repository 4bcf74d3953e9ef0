# SPDX-License-Identifier: Apache-2.0
"""Outputs that deserve nothing and that bad rewards pay for: of text, of policies in an environment, of images."""
