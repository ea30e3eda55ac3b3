"""Floating point operations of fitting and of answering, from a model's real shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pegbox.comparison._profile import Asked, Profile
from pegbox.methods import PENALTY_POINTS, SVD_WORK, Attached, ClosedForm, FewShot, Method
from pegbox.models import TOKENS_ON_ACCELERATOR, TOKENS_PER_BATCH, Base, batches
from pegbox.training import Buckets, descending
from pegbox.tuning import TRUNK_TOKENS

Batch = tuple[int, int]

# What a demonstration has beyond a question: its answer and a separator.
SOLVED_TOKENS = 2


def fit_flops(
    base: Base,
    prompt: Any,
    method: Method,
    lengths: Sequence[int],
    *,
    epochs: float,
    valid_lengths: Sequence[int] = (),
    evaluations: int = 0,
    batch_size: int = 16,
) -> float:
    """Floating point operations of fitting a method: products and attention, backward passes included.

    Of a gradient method these are the forward passes of all steps and evaluations with the padding of their
    batches, the gradients from the top down to the lowest trained parameter, and one pass of the frozen trunk
    per row where the engine caches it. Of the closed form they are one pass over the rows, the decomposition
    and the leave-one-out search; zero-shot and few-shot fit by choosing a prompt, which takes none.

    Args:
        base: The base.
        prompt: The task made ready for it, as :meth:`pegbox.Base.prepare` returns it.
        method: The method.
        lengths: Tokens of each training row under that prompt, without what the method itself adds; for
            multiple choice of each question with each of its options.
        epochs: Passes over the rows.
        valid_lengths: The same of the rows that are evaluated on while training.
        evaluations: How often they are.
        batch_size: Rows of one pass.

    Raises:
        CapabilityError: When the method cannot work on the base or the task.
    """
    asked = Asked.of(base, prompt, method)
    if not isinstance(method, Attached):
        return _solver_flops(asked, lengths)
    profile = Profile.of(asked)
    train, valid = ([length + asked.soft for length in part] for part in (lengths, valid_lengths))
    steps = stepped(train, batch_size)
    total = epochs * sum(profile.forward(*batch) + profile.backward(*batch) for batch in steps)
    total += evaluations * sum(profile.forward(*batch) for batch in validated(valid, 2 * batch_size))
    if profile.trunk is not None:
        total += sum(profile.trunk(*batch) for part in (train, valid) for batch in below(part))
    return total


def predict_flops(base: Base, prompt: Any, method: Method, lengths: Sequence[int]) -> float:
    """Floating point operations of answering rows with a fitted method; see :func:`fit_flops`.

    What stands before each question in few-shot answering is taken to be as long as the rows are on average;
    the one pass over the pool of the most similar demonstrations is not counted.

    Args:
        base: The base.
        prompt: The task made ready for it.
        method: The method.
        lengths: Tokens of each row.

    Raises:
        CapabilityError: When the method cannot work on the base or the task.
    """
    asked = Asked.of(base, prompt, method)
    return sum(answer_passes(asked, Profile.of(asked, trunk_cache="off"), lengths))


def stepped(lengths: Sequence[int], batch_size: int) -> list[Batch]:
    """Rows and padded tokens of each training batch of an epoch."""
    if not lengths:
        return []
    return _padded(lengths, Buckets(lengths, batch_size, seed=0))


def validated(lengths: Sequence[int], batch_size: int) -> list[Batch]:
    """Rows and padded tokens of each batch of one evaluation."""
    return _padded(lengths, descending(lengths, batch_size))


def below(lengths: Sequence[int]) -> list[Batch]:
    """Rows and padded tokens of each batch in which the frozen trunk runs."""
    return _padded(lengths, batches(lengths, TRUNK_TOKENS))


def answered(lengths: Sequence[int], device: str) -> list[Batch]:
    """Rows and padded tokens of each batch in which answers are read."""
    return _padded(lengths, batches(lengths, TOKENS_PER_BATCH.get(device, TOKENS_ON_ACCELERATOR)))


def solve_flops(rows: int, width: int, labels: int) -> float:
    """Operations of the closed form on cached features: decomposition, leave-one-out grid, solution.

    The decomposition of an (m, n) matrix, m at least n, takes 6 m n^2 + 20 n^3 as a thin singular value
    decomposition and 4 m n^2 + 9 n^3 by the eigenvectors of its Gram matrix (Golub & Van Loan 2013, tables
    5.5.1 and 8.6); each of the grid's penalties takes a product with twice as many columns as labels.
    """
    long, short = max(rows, width), min(rows, width)
    gram = rows * width * short > SVD_WORK
    made = 4.0 * long * short**2 + 9.0 * short**3 if gram else 6.0 * long * short**2 + 20.0 * short**3
    return made + PENALTY_POINTS * 4.0 * labels * rows * short


def _padded(lengths: Sequence[int], groups: Iterable[Sequence[int]]) -> list[Batch]:
    return [(len(group), max(lengths[index] for index in group)) for group in groups]


def answer_passes(asked: Asked, profile: Profile, lengths: Sequence[int]) -> list[float]:
    """Operations of each pass in which rows are answered.

    Args:
        asked: Base, prompt and method.
        profile: The method's, without a cached trunk.
        lengths: Tokens of each row, without soft tokens.
    """
    if isinstance(asked.method, FewShot):
        return _few_shot_passes(asked, asked.method, profile, lengths)
    tokens = [length + asked.soft for length in lengths]
    return [profile.forward(*batch) for batch in answered(tokens, asked.base.device.type)]


def _solver_flops(asked: Asked, lengths: Sequence[int]) -> float:
    """The closed form reads every row; the others fit by choosing a prompt."""
    if not isinstance(asked.method, ClosedForm):
        return 0.0
    settings: Any = asked.base.model.config
    solved = solve_flops(len(lengths), settings.hidden_size, len(asked.prompt.task.labels))
    return sum(answer_passes(asked, Profile.of(asked), lengths)) + solved


def _few_shot_passes(asked: Asked, method: FewShot, profile: Profile, lengths: Sequence[int]) -> list[float]:
    """A shared prefix runs once per draw and is attended to; else it runs before every question."""
    if not lengths:
        return []
    forward, device = profile.forward, asked.base.device.type
    shown = shown_tokens(asked, method, lengths)
    whole = [length + shown for length in lengths]
    if method.selection == "similar":
        # The questions' own features tell what is similar; those of the pool are extracted once.
        return [forward(*batch) for part in (whole, lengths) for batch in answered(part, device)]
    if asked.base.kind != "causal":
        return [forward(*batch) for batch in answered(whole, device)] * method.draws
    pairs = forward.coefficients[5]
    most = max(1, TOKENS_ON_ACCELERATOR // shown)
    groups = batches(lengths, TOKENS_PER_BATCH.get(device, TOKENS_ON_ACCELERATOR), rows=most)
    rows = [
        forward(count, tokens) + count * tokens * shown * pairs for count, tokens in _padded(lengths, groups)
    ]
    return [forward(1, shown), *rows] * method.draws


def shown_tokens(asked: Asked, method: FewShot, lengths: Sequence[int]) -> int:
    """Tokens of the demonstrations before a question, were they rows of mean length."""
    labels = len(asked.prompt.task.labels) if asked.prompt.task.labels else 1
    mean, context = sum(lengths) / len(lengths) + SOLVED_TOKENS, asked.prompt.context
    room = context - min(max(lengths), context // 2)
    counts = range(method.per_class, 1, -1)
    count = next((count for count in counts if count * labels * mean <= room), 1)
    return math.ceil(count * labels * mean)
