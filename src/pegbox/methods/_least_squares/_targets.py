import math

import torch
from torch import Tensor

from pegbox.methods._least_squares._check import as_gold, as_labels, check_smoothing


def margin(smoothing: float, labels: int) -> float:
    """Return log((1 - e)(K - 1)/e): by how much the smoothed gold log-probability exceeds the others."""
    value = check_smoothing(smoothing, labels)
    return math.log1p(-value) + math.log(labels - 1) - math.log(value)


def smoothed_log_targets(gold: Tensor, labels: int, smoothing: float) -> Tensor:
    """Return the log of smoothed one-hot targets: log(1 - e) at the gold label, log(e/(K - 1)) elsewhere.

    Args:
        gold: (rows,) label indices.
        labels: Number of labels K.
        smoothing: Probability e taken from the gold label and shared by the others, in (0, 1 - 1/K).

    Returns:
        (rows, labels) in float64; every row's exponentials sum to one.
    """
    value = check_smoothing(smoothing, labels)
    gold = as_gold(gold, len(gold), labels)
    other = math.log(value) - math.log(labels - 1)
    targets = torch.full((len(gold), labels), other, dtype=torch.float64, device=gold.device)
    return targets.scatter_(1, gold[:, None], math.log1p(-value))


def residual(gold: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Return the centred residual (log P - L)C, with C = I - 11'/K, that the correction has to fit.

    Softmax ignores a constant per row, so only the centred part matters. The smoothed targets enter through
    one number, ``margin(smoothing)``, times the centred one-hot rows.

    Args:
        gold: (rows,) label indices.
        logits: (rows, labels) logits of the base.
        smoothing: See ``smoothed_log_targets``.

    Returns:
        (rows, labels) in float64; every row sums to zero.
    """
    logits, gold = as_labels(logits, gold)
    return margin(smoothing, logits.shape[1]) * centred_one_hot(gold, logits.shape[1]) - centred(logits)


def centred(values: Tensor) -> Tensor:
    """Return ``values`` (rows, labels) less the mean of each row."""
    return values - values.mean(dim=1, keepdim=True)


def centred_one_hot(gold: Tensor, labels: int) -> Tensor:
    """Return one-hot rows less 1/labels, (rows, labels) in float64."""
    values = torch.full((len(gold), labels), -1.0 / labels, dtype=torch.float64, device=gold.device)
    return values.scatter_(1, gold[:, None], 1.0 - 1.0 / labels)


def helmert(labels: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (labels, labels - 1) orthonormal contrasts: columns of unit length that sum to zero."""
    contrasts = torch.zeros(labels, labels - 1, dtype=torch.float64)
    for column in range(labels - 1):
        scale = math.sqrt((column + 1) * (column + 2))
        contrasts[: column + 1, column] = 1.0 / scale
        contrasts[column + 1, column] = -(column + 1) / scale
    return contrasts.to(device)
