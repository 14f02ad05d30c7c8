"""Show what was measured: one page that opens anywhere, and the same figures as Markdown and JSON."""

from repulse.report.section import SECTIONS
from repulse.report.write import ReportFiles, markdown_table, write_report

__all__ = ["SECTIONS", "ReportFiles", "markdown_table", "write_report"]
