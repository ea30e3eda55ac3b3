"""Metrics with intervals, calibration, flips from the base, and paired tests; trains nothing."""

from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._calibration import Bin, Reliability, calibration_error, reliability
from pegbox.evaluation._estimate import SIGNIFICANT, Estimate, percentile_interval, wilson
from pegbox.evaluation._flips import Distance, FlipGroup, FlippedRows, Flips, flips
from pegbox.evaluation._forgetting import (
    Also,
    Forgetting,
    only_also,
    score_also,
    score_forgetting,
    signed,
)
from pegbox.evaluation._generation import TEXT_METRICS, GenerationScores, score_texts
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._paired import Paired, compare
from pegbox.evaluation._policy import FrontierDraws, Judged, PolicyScores, Reach, RewardChange, score_policy
from pegbox.evaluation._records import SqlTable, parse_record
from pegbox.evaluation._reward import Margins, RewardScores, score_rewards
from pegbox.evaluation._scores import ClassScores, Scores, score
from pegbox.evaluation._selective import Answered, RiskCoverage, risk_coverage
from pegbox.evaluation._separation import Undefined, error_auroc, ood_auroc, uncertainties
from pegbox.evaluation._several import Sample, class_sample, compare_several, holm, several, tag_sample
from pegbox.evaluation._tags import TagScores, score_tags
from pegbox.evaluation._truth import TruthScores, score_truth
from pegbox.evaluation._which import which_metrics

__all__ = [
    "SIGNIFICANT",
    "TEXT_METRICS",
    "Also",
    "Answered",
    "Bin",
    "ClassScores",
    "Distance",
    "Estimate",
    "FlipGroup",
    "FlippedRows",
    "Flips",
    "Forgetting",
    "FrontierDraws",
    "GenerationScores",
    "Judged",
    "Margins",
    "Paired",
    "PolicyScores",
    "Reach",
    "Reliability",
    "RewardChange",
    "RewardScores",
    "RiskCoverage",
    "Sample",
    "Scores",
    "SqlTable",
    "TagScores",
    "TruthScores",
    "Undefined",
    "bootstrap",
    "calibration_error",
    "class_sample",
    "compare",
    "compare_several",
    "error_auroc",
    "flips",
    "holm",
    "only_also",
    "ood_auroc",
    "parse_record",
    "percentile_interval",
    "plain",
    "read_estimate",
    "reading",
    "reliability",
    "risk_coverage",
    "score",
    "score_also",
    "score_forgetting",
    "score_policy",
    "score_rewards",
    "score_tags",
    "score_texts",
    "score_truth",
    "several",
    "signed",
    "tag_sample",
    "uncertainties",
    "which_metrics",
    "wilson",
]
