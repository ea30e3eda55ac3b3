"""Closed-form fits of a linear correction to the label logits of a frozen base."""

from pegbox.methods._least_squares._choose import PENALTY_POINTS, Choice, choose_penalty
from pegbox.methods._least_squares._gram import Gram
from pegbox.methods._least_squares._integrate import mean_softmax, softmax_moments
from pegbox.methods._least_squares._newton import newton
from pegbox.methods._least_squares._newton_choice import choose_newton
from pegbox.methods._least_squares._posterior import Posterior
from pegbox.methods._least_squares._solution import Solution
from pegbox.methods._least_squares._solve import solve
from pegbox.methods._least_squares._spectrum import SVD_WORK, Spectrum
from pegbox.methods._least_squares._targets import helmert, residual, smoothed_log_targets
from pegbox.methods._least_squares._update import Updatable
from pegbox.methods._least_squares._vocabulary import VocabularySolution, whole_vocabulary

__all__ = [
    "PENALTY_POINTS",
    "SVD_WORK",
    "Choice",
    "Gram",
    "Posterior",
    "Solution",
    "Spectrum",
    "Updatable",
    "VocabularySolution",
    "choose_newton",
    "choose_penalty",
    "helmert",
    "mean_softmax",
    "newton",
    "residual",
    "smoothed_log_targets",
    "softmax_moments",
    "solve",
    "whole_vocabulary",
]
