from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from pegbox.data import Examples
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._classify import Classify, Demonstration
from pegbox.tasks._defaults import derive_wording
from pegbox.tasks._template import Template
from pegbox.tasks._tokens import check_sayable, continuation, edges, plain_ids, shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal", "masked", "encoder"]
TooLong = Literal["shorten", "error"]
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids, not padded.

    Args:
        ids: Token ids of each row, special tokens included.
        positions: Index in ``ids`` (plus the prefix) whose output holds the answer; 0 for encoders.
        types: Token type ids, where the tokenizer makes them.
        prefix: Token ids that stand before every row and are the same for all (shared demonstrations).
        shortened: Row numbers whose text was cut to fit the context.
        source: Where the rows come from.
    """

    ids: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    types: tuple[tuple[int, ...], ...] | None = None
    prefix: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row without the prefix."""
        return [len(row) for row in self.ids]

    def digest(self) -> str:
        """SHA-256 over all that a model sees."""
        content = sha256()
        for part in (self.prefix, *self.ids, self.positions, *(self.types or ())):
            content.update(repr(tuple(part)).encode())
        return content.hexdigest()

    def notes(self) -> list[str]:
        """A line on shortened rows, if any."""
        if not self.shortened:
            return []
        listed = ", ".join(map(str, self.shortened[:8])) + (", ..." if len(self.shortened) > 8 else "")
        return [f"{len(self.shortened)} of {len(self)} texts shortened to fit the context (rows {listed})"]


@dataclass(frozen=True)
class Prompt:
    """A task made ready for one tokenizer and kind of model.

    Args:
        task: The task with template and label words filled in (none for encoders).
        tokenizer: The tokenizer.
        kind: ``causal``, ``masked`` or ``encoder``.
        context: Longest sequence in tokens.
        answers: Token ids of each label word as it stands after the template; empty for encoders.
        notes: What was derived, one line each.
    """

    task: Classify
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    context: int
    answers: tuple[tuple[int, ...], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

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

    @property
    def template(self) -> Template:
        """The parsed template."""
        return Template(self.task.template or "", self.task.fields)

    def with_demonstrations(self, demonstrations: Sequence[Demonstration]) -> Prompt:
        """The same prompt with other solved rows before each question."""
        return replace(self, task=replace(self.task, demonstrations=tuple(demonstrations), similar=None))

    def with_pool(self, demonstrations: Sequence[Demonstration], per_class: int) -> Prompt:
        """The same prompt with a pool from which each question gets its most similar rows of each label."""
        return replace(self, task=replace(self.task, demonstrations=tuple(demonstrations), similar=per_class))

    def encode(self, rows: Examples, *, too_long: TooLong = "shorten") -> Encoded:
        """Turn rows into token ids; a text that is too long is cut at its end, never template or answer.

        Args:
            rows: The rows.
            too_long: ``"shorten"`` cuts and counts, ``"error"`` refuses.

        Raises:
            InputError: When the template alone does not fit, or a text is too long and must not be cut.
        """
        if tuple(rows.fields) != self.task.fields:
            raise InputError(
                f"the rows have the text columns {', '.join(rows.fields)}",
                where=rows.source,
                expected=", ".join(self.task.fields),
                fix="name them with --text",
            )
        return self._encode_plain(rows, too_long) if self.kind == "encoder" else self._encode(rows, too_long)

    def demonstration_ids(self) -> list[int]:
        """Token ids of all demonstrations, each with its answer and a separator."""
        texts = [] if self.task.similar else [self._solved(shown) for shown in self.task.demonstrations]
        return [token for row in plain_ids(self.tokenizer, texts) for token in row]

    def _solved(self, shown: Demonstration) -> str:
        word = dict(zip(self.task.labels, self.task.label_words or (), strict=True))[shown.label]
        template = self.template
        before, after = template.before(shown.fields), template.after(shown.fields)
        return before + template.gap() + word + after + SEPARATOR

    def _encode(self, rows: Examples, too_long: TooLong) -> Encoded:
        start, end = edges(self.tokenizer)
        end = end if self.kind == "masked" else []
        shown = self.demonstration_ids()
        shared = self.kind == "causal" and bool(shown)
        rest = max(map(len, self.answers)) - 1 if self.kind == "causal" else 0
        room = self.context - len(start) - len(shown) - len(end) - rest
        texts = [dict(zip(rows.fields, values, strict=True)) for values in zip(*rows.fields.values(), strict=True)]
        pieces = self._pieces(texts)
        long = [index for index, (before, after) in enumerate(pieces) if len(before) + len(after) > room]
        if long and too_long == "error":
            raise _too_long(rows, long, self.context)
        for index in long:
            pieces[index] = self._fit(texts[index], room, f"{rows.source}, row {rows.numbers[index]}")
        head = [] if shared else start + shown
        return Encoded(
            ids=tuple((*head, *before, *after, *end) for before, after in pieces),
            positions=tuple(
                len(start) + len(shown) + len(before) - (self.kind == "causal") for before, _ in pieces
            ),
            prefix=tuple(start + shown) if shared else (),
            shortened=tuple(rows.numbers[index] for index in long),
            source=rows.source,
        )

    def _pieces(self, texts: Sequence[Mapping[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Tokens before the answer's output position and after it."""
        template = self.template
        before = plain_ids(self.tokenizer, [template.before(row) for row in texts])
        if self.kind == "causal":
            return [(ids, []) for ids in before]
        after = plain_ids(self.tokenizer, [template.after(row) for row in texts])
        mask = self.tokenizer.mask_token_id
        return [(head, [mask, *tail]) for head, tail in zip(before, after, strict=True)]

    def _fit(self, row: Mapping[str, str], room: int, where: str) -> tuple[list[int], list[int]]:
        row = dict(row)
        while True:
            before, after = self._pieces([row])[0]
            excess = len(before) + len(after) - room
            if excess <= 0:
                return before, after
            longest = max(self.template.used(), key=lambda name: len(row[name]))
            if not row[longest]:
                raise InputError(
                    "the template alone is longer than the context",
                    where=where,
                    expected=f"at most {self.context} tokens for demonstrations, template and answer",
                    fix="shorten the template, show fewer demonstrations, or raise --max-length",
                )
            row[longest] = shorten(self.tokenizer, row[longest], excess)

    def _encode_plain(self, rows: Examples, too_long: TooLong) -> Encoded:
        columns = [list(column) for column in rows.fields.values()]
        coded = self.tokenizer(*columns, split_special_tokens=True, verbose=False)
        long = [index for index, ids in enumerate(coded["input_ids"]) if len(ids) > self.context]
        if long:
            if too_long == "error":
                raise _too_long(rows, long, self.context)
            coded = self.tokenizer(
                *columns, split_special_tokens=True, truncation="longest_first", max_length=self.context
            )
        types = coded.get("token_type_ids")
        return Encoded(
            ids=tuple(map(tuple, coded["input_ids"])),
            positions=(0,) * len(rows),
            types=tuple(map(tuple, types)) if types is not None else None,
            shortened=tuple(rows.numbers[index] for index in long),
            source=rows.source,
        )

    def _collision(self) -> str:
        words, seen = self.task.label_words or (), {}  # type: ignore[var-annotated]
        for word, tokens in zip(words, self.answers, strict=True):
            if tokens[0] in seen:
                return f"'{seen[tokens[0]]}' and '{word}'"
            seen[tokens[0]] = word
        return ""


def prepare(task: Classify, tokenizer: PreTrainedTokenizerBase, kind: Kind, context: int) -> Prompt:
    """Fill in template and label words and find the tokens of the answers.

    Args:
        task: The task.
        tokenizer: The model's tokenizer.
        kind: ``causal``, ``masked`` or ``encoder`` (no output layer: plain texts, no words).
        context: Longest sequence in tokens.

    Raises:
        InputError: For a label word that the tokenizer cannot say, or two that it says alike.
        CapabilityError: For a causal model whose template goes on after the answer.
    """
    if kind == "encoder":
        return Prompt(task, tokenizer, kind, context)
    notes: list[str] = []
    template, words = task.template, task.label_words
    if template is None or words is None:
        derived = derive_wording(
            task.fields, task.labels, lambda word: _first(tokenizer, word, single=kind == "masked")
        )
        if template is None:
            template = derived.template if words is None else _named(task)
            notes.append(f"template {template!r} (derived; override with --template)")
        if words is None:
            words = derived.label_words
            pairs = ", ".join(f"{label}={word}" for label, word in zip(task.labels, words, strict=True))
            notes.append(f"label words {pairs} (derived; override with --label-words)")
    task = replace(task, template=template, label_words=words)
    parsed = Template(template, task.fields)
    if kind == "causal" and not parsed.answer_last:
        raise CapabilityError(
            "the template goes on after the answer, which a causal model reads from left to right",
            where=repr(template),
            expected="{answer} after all text slots",
            fix="move {answer} to the end, or use a masked model",
        )
    answers = _answers(parsed, tokenizer, words, single=kind == "masked")
    return Prompt(task, tokenizer, kind, context, answers, tuple(notes))


def _named(task: Classify) -> str:
    aliases = ("text",) if len(task.fields) == 1 else ("text_a", "text_b")
    return "\n".join(f"{{{alias}}}" for alias in aliases) + "\nLabel: {answer}"


def _first(tokenizer: PreTrainedTokenizerBase, word: str, *, single: bool) -> int | None:
    tokens = continuation(tokenizer, "x", " " + word)
    return None if tokens is None or (single and len(tokens) != 1) else tokens[0]


def _answers(
    template: Template, tokenizer: PreTrainedTokenizerBase, words: Sequence[str], *, single: bool
) -> tuple[tuple[int, ...], ...]:
    before = template.before(dict.fromkeys(template.fields, "x"))
    found = [continuation(tokenizer, before, template.gap() + word) for word in words]
    checked = check_sayable(tokenizer, words, found, single=single)
    for index, tokens in enumerate(checked):
        if tokens in checked[:index]:
            twin = words[checked.index(tokens)]
            raise InputError(
                f"the tokenizer says the label words '{twin}' and '{words[index]}' alike",
                where=f"label words {list(words)}",
                expected="words that differ in their tokens",
                fix="choose other words with --label-words",
            )
    return tuple(map(tuple, checked))


def _too_long(rows: Examples, long: Sequence[int], context: int) -> InputError:
    numbers = ", ".join(str(rows.numbers[index]) for index in long[:8])
    return InputError(
        f"{len(long)} texts are longer than the context",
        where=f"{rows.source}, rows {numbers}{', ...' if len(long) > 8 else ''}",
        expected=f"at most {context} tokens with the template",
        fix="shorten them, or let them be cut with --too-long shorten",
    )
