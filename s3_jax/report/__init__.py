"""Figures, tables and one HTML page, from a run's files only."""

from s3_jax.report.rows import ResultRow, result_rows
from s3_jax.report.tables import markdown_table, result_table
from s3_jax.report.write import write_report

__all__ = ["ResultRow", "markdown_table", "result_rows", "result_table", "write_report"]
