"""Prompt-based tuning with demonstrations in the context (Gao et al. 2021, LM-BFF)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from pegbox.data import Examples
from pegbox.errors import CapabilityError, UsageError, check_names
from pegbox.tasks import Classify, Prompt, demonstration, random_draws, random_others, text_keys
from pegbox.training import Trainable
from pegbox.tuning._label_rows import LabelRows

if TYPE_CHECKING:
    from pegbox.tuning._shapes import Work


@dataclass(frozen=True)
class Demonstrate:
    """Solved training rows that stand before each question while a gradient method trains and afterwards.

    Args:
        per_class: Demonstrations of each label.
        selection: ``random``: each training row sees rows drawn at random, others in each epoch, and later
            answers are averaged over several draws; ``similar``: each question sees the training rows whose
            features in the frozen base have the largest cosine with its own. A training row never sees
            itself or its duplicates.
        draws: Random draws, in training as in prediction; the most similar rows are always the same ones.

    Raises:
        UsageError: For values that cannot be.
    """

    per_class: int = 1
    selection: Literal["random", "similar"] = "random"
    draws: int | None = None

    def __post_init__(self) -> None:
        if self.draws is None:
            object.__setattr__(self, "draws", 4 if self.selection == "random" else 1)
        faults = [
            f"{name} is {value!r}, expected {expected}"
            for name, value, valid, expected in (
                ("per_class", self.per_class, _positive(self.per_class), "a whole number of at least 1"),
                ("selection", self.selection, self.selection in ("random", "similar"), "random or similar"),
                ("draws", self.draws, _positive(self.draws), "a whole number of at least 1"),
            )
            if not valid
        ]
        if not faults and self.selection == "similar" and self.draws != 1:
            faults = [f"draws is {self.draws}, expected 1: the most similar rows are always the same ones"]
        if faults:
            raise UsageError("invalid demonstrations: " + "; ".join(faults))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Demonstrate:
        """Make it from a mapping.

        Raises:
            UsageError: For an unknown key, naming the nearest.
        """
        valid = [item.name for item in fields(cls)]
        check_names(options, valid, "demonstrations have no option '{}'")
        return cls(**options)


def check_trained(name: str, demonstrations: Demonstrate | None, *, trained: bool) -> None:
    """Raise UsageError for demonstrations with a method that is not trained."""
    if demonstrations is not None and not trained:
        raise UsageError(
            f"{name} is not trained with demonstrations",
            expected="a gradient method such as lora",
            fix="leave them out; few-shot has options of its own for them",
        )


def shown(work: Work, rows: Any) -> Work:
    """The work with demonstrations from the training rows in its prompt, as every later question sees them.

    Raises:
        CapabilityError: Where demonstrations cannot be shown, or none fit.
        InputError: For too few rows of a label.
        UsageError: When the task has demonstrations of its own.
    """
    plan, prompt = work.demonstrate, work.prompt
    assert plan is not None
    _check_wanted(prompt)
    assert isinstance(rows, Examples)
    labels = prompt.task.labels
    random_others(rows, labels, plan.per_class, seed=work.seed)  # tells of too few rows
    if plan.selection == "similar":
        pool = [demonstration(rows, index) for index in range(len(rows))]
        return replace(work, prompt=prompt.with_pool(pool, plan.per_class))
    count, short = _fitting(work, plan, rows)
    draws = random_draws(rows.select(sorted(short)), labels, count, plan.draws or 1, seed=work.seed)
    return replace(work, prompt=prompt.with_draws(draws), demonstrate=replace(plan, per_class=count))


def drawn_rows(work: Work, parts: Sequence[Examples]) -> list[Trainable]:
    """The rows of each part behind random demonstrations.

    Args:
        work: What :func:`shown` returned.
        parts: Training rows, each of which sees others of them, then perhaps validation rows, which see the
            first draw of what every later question sees.
    """
    plan, rows = work.demonstrate, parts[0]
    assert plan is not None
    plain = work.prompt.with_demonstrations(())
    gold = work.prompt.task.gold
    solved = plain.solved_ids([demonstration(rows, index) for index in range(len(rows))])
    _, short = _fitting(replace(work, prompt=plain), plan, rows)
    training = []
    for draw in range(plan.draws or 1):
        others = random_others(
            rows, plain.task.labels, plan.per_class, seed=work.seed, draw=draw, among=short
        )
        before = [[token for index in chosen for token in solved[index]] for chosen in others]
        encoded = plain.encode_after(rows, before, too_long=work.too_long)
        for note in encoded.notes():
            work.say(note)
        training.append(LabelRows(work.base, plain, encoded, gold(rows)))
    made: list[Trainable] = [DrawnRows(training) if len(training) > 1 else training[0]]
    for part in parts[1:]:
        encoded = work.prompt.draws[0].encode(part, too_long=work.too_long)
        for note in encoded.notes():
            work.say(note)
        made.append(LabelRows(work.base, plain, encoded, gold(part)))
    return made


class DrawnRows:
    """Rows whose demonstrations change from epoch to epoch, by turns.

    Args:
        draws: The same rows after each draw of demonstrations.
    """

    def __init__(self, draws: Sequence[LabelRows]) -> None:
        self._draws, self._now = draws, draws[0]
        self.groups = draws[0].groups
        self.lengths = [max(lengths) for lengths in zip(*(draw.lengths for draw in draws), strict=True)]

    def __len__(self) -> int:
        return len(self._now)

    def begin_epoch(self, epoch: int) -> None:
        """Turn to the draw of an epoch."""
        self._now = self._draws[epoch % len(self._draws)]

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One padded batch with the demonstrations of this epoch."""
        return self._now.collate(indices)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As that of :class:`LabelRows`."""
        return self._now.loss(model, batch)


def _check_wanted(prompt: Prompt) -> None:
    if not isinstance(prompt.task, Classify) or not prompt.answers:
        raise CapabilityError(
            "demonstrations cannot be shown where no label word answers",
            where=f"a {type(prompt.task).__name__} task read by {prompt.kind} features",
            expected="a classification task answered by label words",
            fix="leave the demonstrations out",
        )
    if prompt.task.demonstrations:
        raise UsageError(
            "the task has demonstrations of its own",
            where=f"{len(prompt.task.demonstrations)} demonstrations",
            expected="a task without, or fit without demonstrations",
            fix="leave one of the two out",
        )


def _fitting(work: Work, plan: Demonstrate, rows: Examples) -> tuple[int, set[int]]:
    """How many demonstrations per class fit into the context, and which rows are short enough to be drawn.

    As many as wanted, or fewer where the context would leave less than half of a label's rows to draw from;
    the room is what the longest question leaves, or half a context. Both are told.
    """
    prompt, labels, of = work.prompt, work.prompt.task.labels, rows.labels or ()
    longest = max(prompt.encode(rows, too_long=work.too_long).lengths)
    room = prompt.context - min(longest, prompt.context // 2)
    sizes = [len(ids) for ids in prompt.solved_ids([demonstration(rows, i) for i in range(len(rows))])]
    keys = text_keys(rows)
    for count in range(plan.per_class, 0, -1):
        short = {index for index, size in enumerate(sizes) if size <= room // (len(labels) * count)}
        texts = {label: {keys[i] for i in short if of[i] == label} for label in labels}
        halves = all(2 * sum(of[i] == label for i in short) >= of.count(label) for label in labels)
        if min(map(len, texts.values())) > count and (halves or count == 1):
            _tell_fitting(work, plan, count, len(rows) - len(short))
            return count, short
    raise CapabilityError(
        "one demonstration per class does not fit into the context",
        where=f"{work.base.name}, context {prompt.context} tokens",
        expected="two rows of each label that leave half a context for the question",
        fix="leave the demonstrations out, or use a model with a longer context",
    )


def _tell_fitting(work: Work, plan: Demonstrate, count: int, long: int) -> None:
    context = f"the context holds {work.prompt.context} tokens"
    if count < plan.per_class:
        work.say(f"{count} instead of {plan.per_class} demonstrations per class: {context}")
    if long:
        work.say(f"{long} training rows are too long to be shown as demonstrations: {context}")


def _positive(value: object) -> bool:
    return type(value) is int and value >= 1
