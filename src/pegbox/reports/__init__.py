"""Tables for the terminal, Markdown, plots and pages of comparisons and RLHF runs; computes no metric."""

from pegbox.reports._advice import offers_table, pilot_table
from pegbox.reports._calibrated import calibrated_markdown, calibrated_table
from pegbox.reports._comparison import comparison_table, rung_line
from pegbox.reports._course import course_diagram, held_diagram
from pegbox.reports._curve import learning_curve_diagram
from pegbox.reports._diagram import reliability_diagram
from pegbox.reports._forgetting_panel import forgetting_panel
from pegbox.reports._frontier import frontier_diagram
from pegbox.reports._ladder import LadderRow, ladder, ladder_markdown
from pegbox.reports._margins import margins_diagram
from pegbox.reports._page import write_report, write_rlhf_report
from pegbox.reports._panel import scores_panel
from pegbox.reports._pareto import LOWER, cost_diagram
from pegbox.reports._risk_coverage import risk_coverage_diagram
from pegbox.reports._seeds_table import seeds_table
from pegbox.reports._spectrum import spectrum_diagram

__all__ = [
    "LOWER",
    "LadderRow",
    "calibrated_markdown",
    "calibrated_table",
    "comparison_table",
    "cost_diagram",
    "course_diagram",
    "forgetting_panel",
    "frontier_diagram",
    "held_diagram",
    "ladder",
    "ladder_markdown",
    "learning_curve_diagram",
    "margins_diagram",
    "offers_table",
    "pilot_table",
    "reliability_diagram",
    "risk_coverage_diagram",
    "rung_line",
    "scores_panel",
    "seeds_table",
    "spectrum_diagram",
    "write_report",
    "write_rlhf_report",
]
