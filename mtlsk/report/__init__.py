"""The report of a study: a page to explore, a page of Markdown, a picture and two tables."""

from mtlsk.outcome import Results
from mtlsk.report.write import write_report

__all__ = ["Results", "write_report"]
