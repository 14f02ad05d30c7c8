"""Show what was measured: one page that opens anywhere, and the same figures as Markdown and JSON."""

from repulse.report.markdown import certificate_summary
from repulse.report.write import ReportFiles, markdown_table, write_report

__all__ = ["ReportFiles", "certificate_summary", "markdown_table", "write_report"]
