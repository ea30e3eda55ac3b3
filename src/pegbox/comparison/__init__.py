"""Methods against each other under one protocol: compare, advise, learning curves, estimates of cost."""

from pegbox.comparison._advise import Advice, advise
from pegbox.comparison._bag_of_words import BagOfWords
from pegbox.comparison._baselines import baselines, build_baseline
from pegbox.comparison._compare import compare, planned
from pegbox.comparison._curve import CurvePoint, LearningCurve, Metric, learning_curve
from pegbox.comparison._estimate import Costs, Estimator, estimate
from pegbox.comparison._files import LADDER, PAGE, PICTURES, POLICY, POLICY_RUN, RECORD, RESULT, TABLE
from pegbox.comparison._fitted import Baseline, FittedBaseline
from pegbox.comparison._flops import fit_flops, predict_flops
from pegbox.comparison._majority import LongestOption, Majority
from pegbox.comparison._offer import Offer
from pegbox.comparison._pilot import Pilot, Trial
from pegbox.comparison._policy_run import PolicyRun, Stage
from pegbox.comparison._power_law import PowerLaw
from pegbox.comparison._result import (
    ANSWERS,
    BaseNote,
    Cell,
    ChangedRow,
    Comparison,
    DataNote,
    Rung,
    RungCost,
    Skipped,
    WrongRow,
    save_json,
)
from pegbox.comparison._rlhf import rlhf

__all__ = [
    "ANSWERS",
    "LADDER",
    "PAGE",
    "PICTURES",
    "POLICY",
    "POLICY_RUN",
    "RECORD",
    "RESULT",
    "TABLE",
    "Advice",
    "BagOfWords",
    "BaseNote",
    "Baseline",
    "Cell",
    "ChangedRow",
    "Comparison",
    "Costs",
    "CurvePoint",
    "DataNote",
    "Estimator",
    "FittedBaseline",
    "LearningCurve",
    "LongestOption",
    "Majority",
    "Metric",
    "Offer",
    "Pilot",
    "PolicyRun",
    "PowerLaw",
    "Rung",
    "RungCost",
    "Skipped",
    "Stage",
    "Trial",
    "WrongRow",
    "advise",
    "baselines",
    "build_baseline",
    "compare",
    "estimate",
    "fit_flops",
    "learning_curve",
    "planned",
    "predict_flops",
    "rlhf",
    "save_json",
]
