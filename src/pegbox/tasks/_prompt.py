from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pegbox.data import Examples, rows_text
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.tasks._classify import Classify, Demonstration
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._soft import Soft, woven_ids
from pegbox.tasks._template import MARK, Template
from pegbox.tasks._tokens import cut_longest, edges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal", "masked", "encoder", "encoder-decoder"]
TooLong = Literal["shorten", "drop", "error"]
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Prompt:
    """A task made ready for one tokenizer and kind of model.

    Args:
        task: The task with template and label words filled in (none for encoders).
        tokenizer: The tokenizer.
        kind: ``causal``, ``masked``, ``encoder`` or ``encoder-decoder``.
        context: Longest sequence in tokens.
        answers: Token ids of each label word as it stands after the template; empty for encoders.
        notes: What was derived, one line each.
        start: Token ids that the decoder of an encoder-decoder always starts with.
        sentinel: Token that stands for the answer in the encoder's text and before it in the decoder's; only
            where an encoder-decoder's template goes on after the answer.
        soft: The soft tokens that a method puts into it.
    """

    task: Classify
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    kind: Kind
    context: int
    answers: tuple[tuple[int, ...], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)
    start: tuple[int, ...] = ()
    sentinel: int | None = None
    soft: Soft | None = None

    @property
    def opening(self) -> tuple[int, ...]:
        """What the decoder of an encoder-decoder reads before the answer; empty for other kinds."""
        return self.start if self.sentinel is None else (*self.start, self.sentinel)

    @property
    def distinct(self) -> bool:
        """Whether the first tokens of the label words tell the labels apart."""
        return len({tokens[0] for tokens in self.answers}) == len(self.answers)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The K rows of the output matrix that hold the answer.

        Raises:
            CapabilityError: When two label words share their first token.
        """
        if not self.distinct:
            raise CapabilityError(
                f"two label words begin with the same token: {self._collision()}",
                where=f"label words {list(self.task.label_words or ())}",
                expected="words with different first tokens, since this method reads one token per label",
                fix="choose other words with --label-words (zero-shot and few-shot score whole words)",
            )
        return tuple(tokens[0] for tokens in self.answers)

    @cached_property
    def template(self) -> Template:
        """The parsed template."""
        return Template(self.task.template or "", self.task.fields)

    def with_demonstrations(self, demonstrations: Sequence[Demonstration]) -> Prompt:
        """The same prompt with other solved rows before each question."""
        return self.with_draws([demonstrations])

    def with_draws(self, draws: Sequence[Sequence[Demonstration]]) -> Prompt:
        """The same prompt with several draws of demonstrations, as many in each, to average over."""
        shown = tuple(item for draw in draws for item in draw)
        task = replace(self.task, demonstrations=shown, similar=None, draws=len(draws))
        return replace(self, task=task)

    def with_pool(self, demonstrations: Sequence[Demonstration], per_class: int) -> Prompt:
        """The same prompt with a pool from which each question gets its most similar rows of each label."""
        task = replace(self.task, demonstrations=tuple(demonstrations), similar=per_class, draws=1)
        return replace(self, task=task)

    def without_soft(self) -> Prompt:
        """The same prompt without soft tokens, as the base alone reads it."""
        if self.soft is None:
            return self
        template = self.task.template and self.template.unmarked()
        return replace(self, soft=None, task=replace(self.task, template=template))

    @property
    def draws(self) -> list[Prompt]:
        """One prompt for each draw of demonstrations; the prompt itself where there is one draw."""
        if self.task.draws == 1:
            return [self]
        shown, size = self.task.demonstrations, len(self.task.demonstrations) // self.task.draws
        return [self.with_demonstrations(shown[at : at + size]) for at in range(0, len(shown), size)]

    def encode(self, rows: Examples, *, too_long: TooLong = "shorten") -> Encoded:
        """Turn rows into token ids; a text that is too long is cut at its end, never template or answer.

        Args:
            rows: The rows.
            too_long: ``"shorten"`` cuts and counts, ``"error"`` refuses.

        Raises:
            InputError: When the template alone does not fit, or a text is too long and must not be cut.
        """
        if self.kind == "encoder":
            self._check_columns(rows)
            return self._encode_plain(rows, too_long)
        shown = self.demonstration_ids()
        encoded = self.encode_after(rows, [shown] * len(rows), too_long=too_long)
        if self.kind != "causal" or not shown:
            return encoded
        prefix = (*self._edges[0], *shown)
        return replace(encoded, ids=tuple(row[len(prefix) :] for row in encoded.ids), prefix=prefix)

    def encode_after(
        self,
        rows: Examples,
        shown: Sequence[Sequence[int]],
        *,
        too_long: TooLong = "shorten",
        rests: Sequence[int] | None = None,
    ) -> Encoded:
        """As :meth:`encode`, each row after demonstrations of its own.

        Args:
            rows: The rows.
            shown: Tokens of each row's demonstrations, see :meth:`solved_ids`.
            too_long: See :meth:`encode`.
            rests: Tokens that each row needs after those encoded here; by default for the longest label word.
        """
        self._check_columns(rows)
        start, end = self._edges
        if rests is None:
            rest = max(map(len, self.answers), default=1) - 1 if self.kind == "causal" else 0
            rests = [rest] * len(rows)
        edge = len(start) + len(end)
        rooms = [self.context - edge - len(ids) - rest for ids, rest in zip(shown, rests, strict=True)]
        texts = [dict(zip(rows.fields, values, strict=True)) for values in rows.texts]
        pieces = self._pieces(texts)
        sizes = [len(before) + len(after) for before, after in pieces]
        long = [index for index, size in enumerate(sizes) if size > rooms[index]]
        if long and too_long == "error":
            raise _too_long(rows, long, self.context)
        for index in long:
            pieces[index] = self._fit(texts[index], rooms[index], f"{rows.source}, row {rows.numbers[index]}")
        self._check_readable(rows, pieces)
        return Encoded(
            ids=tuple(
                (*start, *ids, *before, *after, *end)
                for ids, (before, after) in zip(shown, pieces, strict=True)
            ),
            positions=tuple(
                len(self.opening) - 1
                if self.kind == "encoder-decoder"
                else len(start) + len(ids) + len(before) - (self.kind == "causal")
                for ids, (before, _) in zip(shown, pieces, strict=True)
            ),
            decoder=self.opening,
            shortened=tuple(rows.numbers[index] for index in long),
            source=rows.source,
        )

    def demonstration_ids(self) -> list[int]:
        """Token ids of all demonstrations, each with its answer and a separator; those of one draw."""
        if self.task.draws > 1:
            raise UsageError(
                "several draws of demonstrations cannot stand before one question",
                where=f"draws {self.task.draws}",
                expected="one draw",
                fix="encode each of prompt.draws",
            )
        shown = () if self.task.similar else self.task.demonstrations
        return [token for row in self.solved_ids(shown) for token in row]

    def solved_ids(self, shown: Sequence[Demonstration]) -> list[list[int]]:
        """Token ids of each of some demonstrations, with its answer and a separator."""
        return woven_ids(self.tokenizer, [self._solved(row) for row in shown], self._inner)

    def _solved(self, shown: Demonstration) -> list[str]:
        return self._solved_by(
            dict(zip(self.task.labels, self.task.label_words or (), strict=True))[shown.label], shown
        )

    def _solved_by(self, word: str, shown: Demonstration) -> list[str]:
        before, after = self._before(shown.fields), self.template.pieces_after(shown.fields)
        middle = before[-1] + self.template.gap() + word + after[0]
        pieces = [*before[:-1], middle, *after[1:]]
        return [*pieces[:-1], pieces[-1] + SEPARATOR]

    def _before(self, row: Mapping[str, str]) -> list[str]:
        return self.template.pieces_before(row) + [""] * (self.soft.back if self.soft else 0)

    @cached_property
    def _inner(self) -> list[int]:
        """Ids of the soft tokens within the template."""
        marks = sum(self.template.marks)
        if marks != (self.soft.marks if self.soft else 0):
            raise CapabilityError(
                f"the template marks {marks} soft tokens with {MARK}, which this method does not learn",
                where=repr(self.task.template),
                expected=f"a template without {MARK}",
                fix=f"use p-tuning, or leave {MARK} out",
            )
        return self.soft.inner if self.soft else []

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        start, end = edges(self.tokenizer)
        start = [*start, *(self.soft.leading if self.soft else [])]
        return start, [] if self.kind == "causal" else end

    def _pieces(self, texts: Sequence[Mapping[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Tokens before the answer's output position and after it."""
        template = self.template
        before = woven_ids(self.tokenizer, [self._before(row) for row in texts], self._inner)
        if self.kind == "causal" or (self.kind == "encoder-decoder" and self.sentinel is None):
            return [(ids, []) for ids in before]
        rest = self._inner[template.marks[0] + (self.soft.back if self.soft else 0) :]
        tails = [template.pieces_after(row) for row in texts]
        after = woven_ids(self.tokenizer, tails, rest, follows=self.sentinel is not None)
        gap = self.tokenizer.mask_token_id if self.sentinel is None else self.sentinel
        return [(head, [gap, *tail]) for head, tail in zip(before, after, strict=True)]

    def _fit(self, row: Mapping[str, str], room: int, where: str) -> tuple[list[int], list[int]]:
        row, used = dict(row), self.template.used()
        while True:
            before, after = self._pieces([row])[0]
            excess = len(before) + len(after) - room
            if excess <= 0:
                return before, after
            if not any(row[name] for name in used):
                raise InputError(
                    "the template alone is longer than the context",
                    where=where,
                    expected=f"at most {self.context} tokens for demonstrations, template and answer",
                    fix="shorten the template, show fewer demonstrations, or raise --max-length",
                )
            cut_longest(self.tokenizer, row, used, excess)

    def _check_columns(self, rows: Examples) -> None:
        if tuple(rows.fields) != self.task.fields:
            raise InputError(
                f"the rows have the text columns {', '.join(rows.fields)}",
                where=rows.source,
                expected=", ".join(self.task.fields),
                fix="name them with --text",
            )

    def _check_readable(self, rows: Examples, pieces: Sequence[tuple[list[int], list[int]]]) -> None:
        """A causal model answers at the last token before the answer, so there must be one.

        An encoder must have something to read, be it the end of an empty text.
        """
        ended = self.kind != "causal" and bool(self._edges[1])
        for number, (before, after) in zip(rows.numbers, pieces, strict=True):
            if not (before or after or ended):
                raise InputError(
                    "nothing is left of the text and the template to read an answer after",
                    where=f"{rows.source}, row {number}",
                    expected=f"at least one token within the context of {self.context}",
                    fix="raise --max-length, or show fewer demonstrations",
                )

    def _encode_plain(self, rows: Examples, too_long: TooLong) -> Encoded:
        columns = [list(column) for column in rows.fields.values()]
        if not len(rows):
            return Encoded(ids=(), positions=(), source=rows.source)
        coded = self.tokenizer(*columns, split_special_tokens=True, verbose=False)
        soft = self.soft.leading if self.soft else []
        room = self.context - len(soft)
        long = [index for index, ids in enumerate(coded["input_ids"]) if len(ids) > room]
        if long:
            if too_long == "error":
                raise _too_long(rows, long, self.context)
            coded = self.tokenizer(
                *columns, split_special_tokens=True, truncation="longest_first", max_length=room
            )
        types = coded.get("token_type_ids")
        at = len(edges(self.tokenizer)[0])
        return Encoded(
            ids=tuple((*row[:at], *soft, *row[at:]) for row in coded["input_ids"]),
            positions=(0,) * len(rows),
            types=tuple((*[0] * len(soft), *row) for row in types) if types is not None else None,
            shortened=tuple(rows.numbers[index] for index in long),
            source=rows.source,
        )

    def _collision(self) -> str:
        seen: dict[int, str] = {}
        for word, tokens in zip(self.task.label_words or (), self.answers, strict=True):
            if tokens[0] in seen:
                return f"'{seen[tokens[0]]}' and '{word}'"
            seen[tokens[0]] = word
        return ""


def _too_long(rows: Examples, long: Sequence[int], context: int) -> InputError:
    return InputError(
        f"{len(long)} texts are longer than the context",
        where=f"{rows.source}, {rows_text(rows.numbers[index] for index in long)}",
        expected=f"at most {context} tokens with the template",
        fix="shorten them, or let them be cut with --too-long shorten",
    )
