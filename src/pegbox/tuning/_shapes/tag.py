"""Which entity each word of a sentence belongs to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pegbox._progress import track
from pegbox.data import Sentences, Table, find_tag_columns, from_words, sentences
from pegbox.errors import CapabilityError, RunError
from pegbox.evaluation import TagScores, score_tags
from pegbox.methods import Method, Solved, Solver
from pegbox.models import Base, batches
from pegbox.tasks import Tag, TagPrompt, Windows
from pegbox.training import Trainable
from pegbox.tuning._columns import own_columns
from pegbox.tuning._seen import told_seen
from pegbox.tuning._shapes._shape import Work
from pegbox.tuning._shapes._tag_rows import TagRows, collate_windows

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

TOKENS_PER_BATCH = {"cpu": 1024}
TOKENS_ON_ACCELERATOR = 16384

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entity:
    """One entity of a sentence.

    Args:
        type: Its type.
        start: Its first word, counted from 0.
        end: Its last word.
        text: Its words, with spaces between them.
        probability: Product of its words' tag probabilities.
    """

    type: str
    start: int
    end: int
    text: str
    probability: float


@dataclass(frozen=True)
class Tagged:
    """The answer for one sentence.

    Args:
        tokens: Its words.
        tags: The most probable well-formed BIO tags.
        entities: What the tags say, in order.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]


class TagShape:
    """See :class:`pegbox.Tag`."""

    def check(self, task: Tag, rows: Sentences, valid: Sentences | None, say: Callable[[str], None]) -> None:
        """All words must be tagged; types without an entity are told."""
        for part in (rows, valid):
            if part is not None:
                task.gold(part)
        task.tell_absent(rows, say)

    def base(self, base: Base, method: Method) -> Base:
        """The base's trunk, of which a head scores every token."""
        if isinstance(method, Solver):
            raise CapabilityError(
                f"{method.name} tunes no head, and entities are found by a head on every token",
                expected="a method that trains, such as head, lora, bottleneck or full",
                fix="use --method lora",
            )
        return base.headed("none")

    def solver(self, work: Work, method: Solver, rows: Sentences) -> Callable[[], Solved]:
        """Never asked for: :meth:`base` refuses solvers."""
        raise CapabilityError(
            f"{method.name} solves no tagging task", where=f"{work.base.name}, {rows.source}"
        )

    def trainable(self, work: Work, parts: Sequence[Sentences]) -> list[Trainable]:
        """Windows of each part."""
        found: list[Trainable] = []
        for part in parts:
            windows = _prompt(work.prompt).windows(part, too_long=work.too_long)
            for note in windows.notes():
                work.say(note)
            found.append(TagRows(work.base, windows, _prompt(work.prompt).task.gold(part)))
        return found

    def rows(
        self,
        task: Tag,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Sentences:
        """Sentences by the task's own columns, or by others that stand for them."""
        own_columns(task, table, texts, label, labelled)
        tags = (label or task.tags_column) if labelled else None
        columns = find_tag_columns(
            table, tokens=texts[0] if texts else task.tokens_column, tags=tags, need_tags=labelled
        )
        return sentences(table, columns, need_tags=labelled, on_bad=on_bad)

    def logits(self, tuned: Tuned, rows: Sentences) -> Tensor:
        """(words, tags), sentence after sentence; a word that vanished has O alone."""
        return torch.cat(_answers(tuned, rows)) if len(rows) else torch.empty(0, len(tuned.labels))

    def predict(
        self, tuned: Tuned, inputs: Sequence[str] | Sequence[Sequence[str]] | Sentences
    ) -> list[Tagged]:
        """Tags and entities of each sentence; a string is divided at its spaces."""
        rows = inputs if isinstance(inputs, Sentences) else from_words(inputs)
        answers = [logits.double().log_softmax(1).numpy() for logits in _answers(tuned, rows)]
        return [
            _tagged(words, found, best_path(found, tuned.labels), tuned.labels)
            for words, found in zip(rows.tokens, answers, strict=True)
        ]

    def evaluate(self, tuned: Tuned, rows: Sentences, *, resamples: int, seed: int) -> TagScores:
        """Entity-level scores."""
        task = _prompt(tuned.prompt).task
        task.gold(rows)
        started = time.perf_counter()
        predicted = [answer.tags for answer in self.predict(tuned, rows)]
        seconds = time.perf_counter() - started
        told_seen(tuned, rows)
        scores = score_tags(predicted, rows.tags or (), types=task.types, resamples=resamples, seed=seed)
        return replace(scores, seconds=seconds)


def best_path(logprobs: Array, labels: Sequence[str]) -> list[int]:
    """The most probable tags (words,) in which each I- continues an entity of its type (Viterbi).

    Args:
        logprobs: (words, tags) log-probabilities of each word's tags.
        labels: The tags.
    """
    allowed = np.array([[tag[:2] != "I-" or before[2:] == tag[2:] for tag in labels] for before in labels])
    blocked = np.where(allowed, 0.0, -np.inf)
    total = logprobs[0] + np.array([-np.inf if tag[:2] == "I-" else 0.0 for tag in labels])
    back = []
    for row in logprobs[1:]:
        ways = total[:, None] + blocked
        back.append(ways.argmax(0))
        total = ways.max(0) + row
    path = [int(total.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1]


def _tagged(words: Sequence[str], logprobs: Array, path: Sequence[int], labels: Sequence[str]) -> Tagged:
    tags = [labels[index] for index in path]
    own = logprobs[np.arange(len(path)), list(path)]
    entities = []
    for start, tag in enumerate(tags):
        if tag[:2] != "B-":
            continue
        end = start
        while end + 1 < len(tags) and tags[end + 1] == "I-" + tag[2:]:
            end += 1
        sure = float(np.exp(own[start : end + 1].sum()))
        entities.append(Entity(tag[2:], start, end, " ".join(words[start : end + 1]), sure))
    return Tagged(tuple(words), tuple(tags), tuple(entities))


@torch.no_grad()
def _answers(tuned: Tuned, rows: Sentences) -> list[Tensor]:
    """Logits (words, tags) of each sentence on the CPU."""
    base, labels = tuned.base, len(tuned.labels)
    windows = _prompt(tuned.prompt).windows(rows, too_long=tuned.too_long)
    for note in windows.notes():
        tuned.say(note)
    nothing = torch.full((labels,), -torch.inf)
    nothing[0] = 0.0
    found = [nothing.repeat(len(words), 1) for words in rows.tokens]
    assert tuned.module is not None
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    for indices in track(batches(windows.encoded.lengths, size), "reading words"):
        batch = {
            key: value.to(base.device) for key, value in collate_windows(windows, indices, base.pad).items()
        }
        scores = tuned.module(**batch).float().cpu()
        for line, index in enumerate(indices):
            for row, word, place in windows.places[index]:
                found[row][word] = scores[line, place]
    _check_finite(found, rows, windows, tuned)
    return found


def _check_finite(found: list[Tensor], rows: Sentences, windows: Windows, tuned: Tuned) -> None:
    for index, logits in enumerate(found):
        lost = list(windows.lost[index])
        wrong = ~torch.isfinite(logits).all(1)
        wrong[lost] = False
        if wrong.any():
            raise RunError(
                "the answers are not finite numbers",
                where=f"{rows.source}, first in row {rows.numbers[index]}",
                expected="finite logits",
                fix=f"load {tuned.base.name} in another number format than {tuned.base.dtype}",
            )


def _prompt(prompt: object) -> TagPrompt:
    assert isinstance(prompt, TagPrompt)
    return prompt
