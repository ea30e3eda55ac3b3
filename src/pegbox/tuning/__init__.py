"""Tuning: fit a method on rows, and the tuned model that comes out of it."""

from pegbox.data import GeneralText
from pegbox.tuning._align import Aligned, align
from pegbox.tuning._answer_json import answer_json, answer_kind, check_abstains
from pegbox.tuning._calibrate import Calibrated, Way, calibrate, check_answers, check_ways
from pegbox.tuning._demonstrate import Demonstrate
from pegbox.tuning._dpo import DPO, dpo, read_pairs
from pegbox.tuning._fit import fit
from pegbox.tuning._foreign_head import adapter_folder
from pegbox.tuning._forgetting import OtherTask, forgetting
from pegbox.tuning._general import general_text
from pegbox.tuning._hold_out import MIN_VALID_ROWS, hold_out, labelled_rows
from pegbox.tuning._judge import Judge, SideBySide, judge, judge_of
from pegbox.tuning._label_rows import LabelRows
from pegbox.tuning._label_words import Candidate, LabelWords, search_label_words
from pegbox.tuning._laplace import laplace, uncertain
from pegbox.tuning._merge import Merged, merge
from pegbox.tuning._once import Once
from pegbox.tuning._posterior_files import save_posterior
from pegbox.tuning._prompts_asked import hold_prompts
from pegbox.tuning._rank import Ranks, Spectrum, rank
from pegbox.tuning._readout import as_read, read_by, with_readout
from pegbox.tuning._replay import Replay
from pegbox.tuning._reward_of import check_reward
from pegbox.tuning._run_folder import check_run_folder, clear_run_folder, seed_folder
from pegbox.tuning._saving import SCORES, adapter_bytes, saved_base
from pegbox.tuning._seeds import Seeds, SeedScores, fit_seeds
from pegbox.tuning._shapes import (
    Choice,
    Entity,
    Prediction,
    Preferred,
    Rewarded,
    Tagged,
    Written,
    option_names,
    reward_scale,
    reward_scores,
    shape_of,
    with_reward_scale,
)
from pegbox.tuning._switch import Switchboard
from pegbox.tuning._training import Training
from pegbox.tuning._trunk_rows import (
    TRUNK_MEMORY_SHARE,
    TRUNK_STATES,
    TRUNK_TOKENS,
    TrunkRows,
    with_trunk_cached,
)
from pegbox.tuning._tuned import Cost, Tuned, base_alone
from pegbox.tuning._ways import WAYS

__all__ = [
    "DPO",
    "MIN_VALID_ROWS",
    "SCORES",
    "TRUNK_MEMORY_SHARE",
    "TRUNK_STATES",
    "TRUNK_TOKENS",
    "WAYS",
    "Aligned",
    "Calibrated",
    "Candidate",
    "Choice",
    "Cost",
    "Demonstrate",
    "Entity",
    "GeneralText",
    "Judge",
    "LabelRows",
    "LabelWords",
    "Merged",
    "Once",
    "OtherTask",
    "Prediction",
    "Preferred",
    "Ranks",
    "Replay",
    "Rewarded",
    "SeedScores",
    "Seeds",
    "SideBySide",
    "Spectrum",
    "Switchboard",
    "Tagged",
    "Training",
    "TrunkRows",
    "Tuned",
    "Way",
    "Written",
    "adapter_bytes",
    "adapter_folder",
    "align",
    "answer_json",
    "answer_kind",
    "as_read",
    "base_alone",
    "calibrate",
    "check_abstains",
    "check_answers",
    "check_reward",
    "check_run_folder",
    "check_ways",
    "clear_run_folder",
    "dpo",
    "fit",
    "fit_seeds",
    "forgetting",
    "general_text",
    "hold_out",
    "hold_prompts",
    "judge",
    "judge_of",
    "labelled_rows",
    "laplace",
    "merge",
    "option_names",
    "rank",
    "read_by",
    "read_pairs",
    "reward_scale",
    "reward_scores",
    "save_posterior",
    "saved_base",
    "search_label_words",
    "seed_folder",
    "shape_of",
    "uncertain",
    "with_readout",
    "with_reward_scale",
    "with_trunk_cached",
]
