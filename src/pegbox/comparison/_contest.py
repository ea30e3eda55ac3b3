"""What is compared, by kind of task: answers as they are kept, scored and resampled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pegbox.data import Questions, Rows
from pegbox.errors import CapabilityError, InputError, UsageError, nearest
from pegbox.evaluation import (
    Sample,
    Scores,
    TagScores,
    class_sample,
    flips,
    score,
    score_tags,
    tag_sample,
)
from pegbox.tasks import Choose, Classify, Prefer, Tag, Task
from pegbox.tuning import Tuned, option_names

Array = npt.NDArray[np.float64]
Tags = tuple[tuple[str, ...], ...]
Answers = Array | Tags


class Contest(Protocol):
    """One kind of task, as a comparison sees it."""

    @property
    def kind(self) -> str:
        """``classify``, ``choose`` or ``tag``."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that may decide, the default first."""

    @property
    def lower(self) -> frozenset[str]:
        """Those of them of which less is better."""

    def labels(self, task: Any, rows: Any) -> tuple[str, ...]:
        """What the answers are called."""

    def ask(self, tuned: Tuned, rows: Any) -> Answers:
        """The answers of a tuned model."""

    def ask_baseline(self, baseline: Any, rows: Any) -> Answers:
        """The answers of a fitted baseline."""

    def scores(self, answers: Any, task: Any, rows: Any, base: Any) -> Scores | TagScores:
        """Scores, with flips against the base's answers where there are some."""

    def with_flips(self, scores: Any, answers: Any, task: Any, rows: Any, base: Any) -> Scores | TagScores:
        """The same scores with flips against the base's answers, where there are some."""

    def sample(self, answers: Any, task: Any, rows: Any) -> Sample:
        """The answers ready to be resampled."""

    def spoken(self, answers: Any, task: Any, rows: Any) -> list[str]:
        """Each row's answer in words."""

    def gold(self, task: Any, rows: Any) -> list[str]:
        """Each row's right answer in words."""

    def sureness(self, answers: Any, task: Any, rows: Any) -> list[tuple[float, float]]:
        """The probability of each row's answer, and of the right one."""

    def write(self, answers: Any, folder: Path) -> None:
        """Keep answers in a folder."""

    def read(self, folder: Path) -> Answers:
        """Read kept answers.

        Raises:
            InputError: When they are missing or damaged.
        """


@dataclass(frozen=True)
class Labels:
    """Answers are probabilities of labels, or of a question's own options, (rows, labels)."""

    kind: str = "classify"
    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "nll", "brier")
    lower: frozenset[str] = frozenset({"nll", "brier"})
    name: str = "answers.safetensors"

    def labels(self, task: Classify | Choose, rows: Rows) -> tuple[str, ...]:
        """The task's labels; A, B, C and so on for options."""
        if isinstance(rows, Questions):
            return option_names(max(map(len, rows.options)))
        return tuple(task.labels)

    def ask(self, tuned: Tuned, rows: Rows) -> Array:
        """(rows, labels)."""
        return tuned.probabilities(rows)

    def ask_baseline(self, baseline: Any, rows: Rows) -> Array:
        """(rows, labels)."""
        return np.asarray(baseline.probabilities(rows), dtype=np.float64)

    def scores(self, answers: Array, task: Any, rows: Rows, base: Array | None) -> Scores:
        """See :func:`pegbox.evaluation.score`."""
        numbers = rows.numbers if base is not None else None
        return score(answers, self._gold(task, rows), self.labels(task, rows), base=base, numbers=numbers)

    def with_flips(self, scores: Scores, answers: Array, task: Any, rows: Rows, base: Array) -> Scores:
        """See :func:`pegbox.evaluation.flips`; those that are known are left."""
        if scores.flips is not None:
            return scores
        changed = flips(base, answers, self._gold(task, rows), numbers=rows.numbers)
        return replace(scores, flips=changed)

    def sample(self, answers: Array, task: Any, rows: Rows) -> Sample:
        """See :func:`pegbox.evaluation.class_sample`."""
        return class_sample(answers, self._gold(task, rows))

    def spoken(self, answers: Array, task: Any, rows: Rows) -> list[str]:
        """Label names, or the options' texts."""
        return self._named(answers.argmax(1), task, rows)

    def gold(self, task: Any, rows: Rows) -> list[str]:
        """Label names, or the options' texts."""
        return self._named(self._gold(task, rows), task, rows)

    def sureness(self, answers: Array, task: Any, rows: Rows) -> list[tuple[float, float]]:
        """Probabilities of the answer and of the right one."""
        places = np.arange(len(answers))
        own = answers[places, self._gold(task, rows)]
        return list(zip(map(float, answers.max(1)), map(float, own), strict=True))

    def write(self, answers: Array, folder: Path) -> None:
        """One safetensors file."""
        from safetensors.numpy import save_file

        save_file({"probabilities": np.ascontiguousarray(answers)}, folder / self.name)

    def read(self, folder: Path) -> Array:
        """Read what :meth:`write` wrote."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(folder / self.name)["probabilities"]
        except (OSError, SafetensorError, KeyError) as error:
            raise _damaged(folder / self.name, error) from None

    @staticmethod
    def _gold(task: Any, rows: Rows) -> npt.NDArray[np.int64]:
        return np.array(task.gold(rows))

    def _named(self, places: Sequence[Any] | npt.NDArray[Any], task: Any, rows: Rows) -> list[str]:
        if isinstance(rows, Questions):
            return [own[int(place)] for own, place in zip(rows.options, places, strict=True)]
        names = self.labels(task, rows)
        return [names[int(place)] for place in places]


@dataclass(frozen=True)
class BioTags:
    """Answers are BIO tags of each sentence's words."""

    kind: str = "tag"
    metrics: tuple[str, ...] = ("f1",)
    lower: frozenset[str] = frozenset()
    name: str = "answers.json"

    def labels(self, task: Tag, rows: Rows) -> tuple[str, ...]:  # noqa: ARG002
        """The entity types."""
        return tuple(task.types)

    def ask(self, tuned: Tuned, rows: Rows) -> Tags:
        """Tags of each sentence."""
        return tuple(answer.tags for answer in tuned.predict(rows))

    def ask_baseline(self, baseline: Any, rows: Rows) -> Tags:
        """Tags of each sentence."""
        return tuple(map(tuple, baseline.tags(rows)))

    def scores(self, answers: Tags, task: Tag, rows: Any, base: object) -> TagScores:  # noqa: ARG002
        """See :func:`pegbox.evaluation.score_tags`."""
        return score_tags(answers, rows.tags, types=task.types)

    def with_flips(self, scores: TagScores, *_: Any) -> TagScores:
        """Tags have none."""
        return scores

    def sample(self, answers: Tags, task: Tag, rows: Any) -> Sample:  # noqa: ARG002
        """See :func:`pegbox.evaluation.tag_sample`."""
        return tag_sample(answers, rows.tags)

    def spoken(self, answers: Tags, task: Tag, rows: Any) -> list[str]:  # noqa: ARG002
        """Entities in words."""
        return [_entities(words, tags) for words, tags in zip(rows.tokens, answers, strict=True)]

    def gold(self, task: Tag, rows: Any) -> list[str]:
        """Entities in words."""
        return self.spoken(rows.tags, task, rows)

    def sureness(self, answers: Tags, task: Tag, rows: Any) -> list[tuple[float, float]]:  # noqa: ARG002
        """Tags are right or wrong."""
        return [(1.0, 0.0)] * len(answers)

    def write(self, answers: Tags, folder: Path) -> None:
        """One JSON file."""
        (folder / self.name).write_text(json.dumps(answers, ensure_ascii=False) + "\n", "utf-8")

    def read(self, folder: Path) -> Tags:
        """Read what :meth:`write` wrote."""
        try:
            return tuple(map(tuple, json.loads((folder / self.name).read_text("utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(folder / self.name, error) from None


def contest_of(task: Task) -> Contest:
    """How tasks of this kind are compared.

    Raises:
        CapabilityError: For a kind that cannot be compared.
    """
    if isinstance(task, Tag):
        return BioTags()
    if isinstance(task, Choose):
        return Labels(kind="choose")
    if isinstance(task, Classify):
        return Labels()
    if isinstance(task, Prefer):
        raise CapabilityError(
            "the ladder compares answers that are right or wrong, and a reward is a number, which an untuned "
            "base does not give",
            expected="a Classify, Choose or Tag task",
            fix="tune each method by pegbox reward with the same --test file and --seeds",
        )
    raise CapabilityError(
        f"the ladder compares answers that are right or wrong, and {type(task).__name__} asks for text",
        expected="a Classify, Choose or Tag task",
        fix="tune each method by pegbox sft with the same --test file and --seeds",
    )


def decisive(contest: Contest, metric: str | None) -> str:
    """The metric that decides.

    Raises:
        UsageError: For one that cannot.
    """
    if metric is not None and metric not in contest.metrics:
        raise UsageError(
            f"the metric '{metric}' cannot decide",
            where=f"metric {metric}",
            expected=", ".join(contest.metrics),
            fix=nearest(metric, contest.metrics) or f"leave it out for {contest.metrics[0]}",
        )
    return metric or contest.metrics[0]


def label_counts(task: Task, rows: Rows) -> Mapping[str, int]:
    """Rows of each label; empty where rows have no label of their own."""
    if not isinstance(task, Classify):
        return {}
    counts = Counter(task.gold(rows))  # type: ignore[arg-type]
    return {label: counts[index] for index, label in enumerate(task.labels)}


def _entities(words: Sequence[str], tags: Sequence[str]) -> str:
    found: list[str] = []
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("I-") and found:
            found[-1] += f" {word}"
        elif tag != "O":
            found.append(f"{tag[2:]}: {word}")
    return "; ".join(found) or "none"


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"the kept answers cannot be read: {error}",
        where=str(path),
        expected="the file that the comparison wrote",
        fix="remove the folder it lies in: only that rung is measured again",
    )
