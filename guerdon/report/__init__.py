# SPDX-License-Identifier: Apache-2.0
"""What a run says, on one page that opens anywhere: `write_report` turns a run directory into a single HTML file."""

from guerdon.report.page import write_report

__all__ = ["write_report"]
