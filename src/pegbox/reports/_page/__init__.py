"""Reports: one page each that needs nothing else, and its numbers and pictures as files."""

from pegbox.reports._page._rlhf import write_rlhf_report
from pegbox.reports._page._write import write_report

__all__ = ["write_report", "write_rlhf_report"]
