import math

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import InputError
from pegbox.evaluation._estimate import Floats
from pegbox.evaluation._inputs import _numbers, _refuse_rows
from pegbox.evaluation._nlg._measure import Measure, Measured, MissingError, ratio

LIKELIHOOD = ("perplexity", "bits_per_byte")
# exp of more than this is no float64.
_MOST_NATS = 700.0


def likelihood(
    nats: ArrayLike, tokens: ArrayLike | None, sizes: ArrayLike | None, rows: int | None
) -> tuple[dict[str, Measured], dict[str, str]]:
    """perplexity and bits_per_byte of gold answers, and what is missing with the reason.

    Args:
        nats: Summed cross-entropy of each gold answer ``(rows,)``.
        tokens: Its number of tokens ``(rows,)``.
        sizes: Its UTF-8 bytes ``(rows,)``.
        rows: Number of rows, where it is known already.

    Raises:
        InputError: another shape, NaN, infinity, negative numbers or more than 700 nats per token.
    """
    loss = read_amounts(nats, "nats", rows)
    found, missing = {}, {}
    for name, bottom, key in (("perplexity", tokens, "tokens"), ("bits_per_byte", sizes, "sizes")):
        try:
            if bottom is None:
                raise MissingError(f"no numbers of {key} are given (pass {key}=)")
            made = _perplexity if name == "perplexity" else _bits
            found[name] = Measured({name: made(loss, read_amounts(bottom, key, len(loss)))})
        except MissingError as error:
            missing[name] = str(error)
    return found, missing


def read_amounts(values: ArrayLike, name: str, rows: int | None) -> Floats:
    """Check and return numbers of at least 0 ``(rows,)``.

    Raises:
        InputError: another shape, no rows, not numbers, NaN, infinite or negative.
    """
    array = _numbers(values, name)
    if array.ndim != 1 or not len(array) or (rows is not None and len(array) != rows):
        wanted = "(rows,), at least one row" if rows is None else f"({rows},), one number per row"
        raise InputError(f"{name} have shape {array.shape}", expected=f"shape {wanted}")
    _refuse_rows(~np.isfinite(array) | (array < 0), f"{name} are negative, NaN or infinite")
    return array


def _perplexity(nats: Floats, tokens: Floats) -> Measure:
    if not tokens.sum():
        raise MissingError("the gold answers have no tokens")
    _refuse_rows(nats > _MOST_NATS * tokens, f"nats are more than {_MOST_NATS:.0f} per token")
    inner = ratio(nats, tokens)
    return Measure(math.exp(inner.value), lambda weights: np.exp(inner.statistic(weights)))


def _bits(nats: Floats, sizes: Floats) -> Measure:
    if not sizes.sum():
        raise MissingError("the gold answers have no bytes")
    return ratio(nats / math.log(2), sizes)
