"""Reports of a run, for people: one HTML file, its pictures as files, its tables on the terminal. Knows no family."""

from noumena.evaluation.report import save_figures, summary_table, write_report

__all__ = ["save_figures", "summary_table", "write_report"]
