"""The report of a comparison: one page that needs nothing else, and its numbers and pictures as files."""

from pegbox.reports._page._write import write_report

__all__ = ["write_report"]
