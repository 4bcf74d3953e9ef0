# SPDX-License-Identifier: Apache-2.0
"""The held-out half of the zoo: modules named after their domain, text, control or image."""
