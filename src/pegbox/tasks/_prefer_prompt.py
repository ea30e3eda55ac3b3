from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from pegbox.data import Conversations, Examples, Message, Preferences, rows_text
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._generate_prompt import GeneratePrompt
from pegbox.tasks._prefer import Prefer
from pegbox.tasks._prepare_generate import prepare_generate
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._tokens import plain_ids, shorten_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CUTS = 8
_SPEAKERS = {"user": "User: ", "assistant": "Assistant: ", "system": ""}


@dataclass(frozen=True)
class AnswerIds:
    """Answers after their prompts as token ids, one or two of each row.

    Args:
        encoded: All of them, those of a row side by side.
        rows: Places of each row's answers, in order.
        kept: Which rows (0-based) of those asked for these are.
        shortened: Row numbers whose prompt was cut at its beginning.
        left_out: Row numbers that do not fit and were left out.
        count: How many rows were asked for.
    """

    encoded: Encoded
    rows: tuple[range, ...]
    kept: tuple[int, ...]
    shortened: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    count: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, place: int = 0) -> list[tuple[int, ...]]:
        """Token ids of each row's first answer (0) or second (1) after its prompt, end included."""
        return [self.encoded.ids[row[place]] for row in self.rows]

    def check_whole(self, context: int) -> None:
        """Raise InputError when a row was left out."""
        if self.left_out:
            raise unfit(self.encoded.source, self.left_out, context)

    def notes(self) -> list[str]:
        """Lines for the user on what was cut and left out."""
        where = f"{self.encoded.source}: " if self.encoded.source else ""
        told = (
            (self.shortened, "prompts cut at their beginning to fit the context"),
            (self.left_out, "rows left out, since they do not fit into the context, answers never being cut"),
        )
        return [
            f"{where}{len(rows)} of {self.count} {what} ({rows_text(rows)})" for rows, what in told if rows
        ]


@dataclass(frozen=True)
class PreferPrompt(Prompt):
    """A task of preferences made ready for one tokenizer.

    Args:
        writer: What writes answers after prompts for a model that reads from left to right; ``None`` for an
            encoder, which reads prompt and answer as a pair.
    """

    task: Prefer  # type: ignore[assignment]
    writer: GeneratePrompt | None = None

    def encode_pairs(self, rows: Preferences, *, too_long: TooLong = "shorten") -> AnswerIds:
        """Both answers of each row after its prompt, as token ids with their ends.

        Where they do not fit, both are read after the same prompt, cut so that the longer one fits.

        Args:
            rows: The pairs.
            too_long: What to do with rows longer than the context: ``shorten`` cuts prompts at their
                beginnings, oldest turns first, since an answer is to the newest; never an answer, a system
                message or the template, so that rows whose answers alone do not fit are left out; ``drop``
                leaves all of them out; ``error`` refuses.

        Raises:
            InputError: For rows that do not fit and must, when none fits, and when the template fails.
        """
        answers = list(zip(rows.chosen, rows.rejected, strict=True))
        return self._encoded(rows, rows.prompts, answers, too_long)

    def encode_answers(self, rows: Conversations, *, too_long: TooLong = "shorten") -> AnswerIds:
        """The answer of each row after its prompt; as :meth:`encode_pairs`."""
        answers = [(messages[-1].content,) for messages in rows.messages]
        return self._encoded(rows, rows.prompts(), answers, too_long)

    def encode(self, rows: Examples, *, too_long: TooLong = "shorten") -> Encoded:
        """The texts of each row but its last as a prompt, the last as its answer."""
        columns = list(rows.fields.values())
        texts = list(zip(*columns, strict=True)) if columns else [("x", "x")] * len(rows)
        prompts = [(Message("user", " ".join(parts[:-1]) or "x"),) for parts in texts]
        return self._encoded(rows, prompts, [(parts[-1],) for parts in texts], too_long).encoded

    def without_soft(self) -> PreferPrompt:
        """The same prompt without soft tokens."""
        return replace(self, soft=None)

    @cached_property
    def spoken(self) -> GeneratePrompt | None:
        """What writes answers after prompts, with the soft tokens of this prompt."""
        return None if self.writer is None else replace(self.writer, soft=self.soft)

    def _encoded(
        self,
        rows: Preferences | Conversations | Examples,
        prompts: Sequence[Sequence[Message]],
        answers: Sequence[tuple[str, ...]],
        too_long: TooLong,
    ) -> AnswerIds:
        where = [f"{rows.source}, row {number}" for number in rows.numbers]
        found = self._ids(prompts, answers, where)
        cut, out = [], []
        for at, own in enumerate(found):
            if max(map(len, own.ids)) > self.context and too_long == "shorten":
                shorter = self._shorter(prompts[at], answers[at], where[at])
                if shorter is not None:
                    found[at] = shorter
                    cut.append(rows.numbers[at])
            if max(map(len, found[at].ids)) > self.context:
                out.append(at)
        left = tuple(rows.numbers[at] for at in out)
        unfitting = set(out)
        kept = tuple(at for at in range(len(found)) if at not in unfitting)
        if out and (too_long == "error" or not kept):
            raise unfit(rows.source, left, self.context)
        flat = [found[at] for at in kept]
        ids = tuple(ids for own in flat for ids in own.ids)
        types = tuple(types for own in flat for types in own.types or ()) or None
        places = list(accumulate((len(own.ids) for own in flat), initial=0))
        return AnswerIds(
            Encoded(ids, (0,) * len(ids), types, source=rows.source),
            tuple(map(range, places[:-1], places[1:])),
            kept,
            tuple(cut),
            left,
            len(found),
        )

    def _ids(
        self,
        prompts: Sequence[Sequence[Message]],
        answers: Sequence[tuple[str, ...]],
        where: Sequence[str],
    ) -> list[_Own]:
        """Token ids of each row's answers after its prompt, none cut."""
        owners = [at for at, own in enumerate(answers) for _ in own]
        flat = [answer for own in answers for answer in own]
        spoken = self.spoken
        if spoken is not None:
            chains = [
                (*prompts[at], Message("assistant", text)) for at, text in zip(owners, flat, strict=True)
            ]
            ids = spoken.whole(chains, [where[at] for at in owners])
            types = None
        else:
            ids, types = self._pairs([_as_text(prompts[at], self.task.system) for at in owners], flat)
        found, start = [], 0
        for own in answers:
            end = start + len(own)
            found.append(_Own(tuple(ids[start:end]), None if types is None else tuple(types[start:end])))
            start = end
        return found

    def _pairs(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]] | None]:
        """Each prompt with its answer as the tokenizer writes a pair, soft tokens before it."""
        if not answers:
            return [], None
        flat = Examples(
            "", {"prompt": tuple(prompts), "answer": tuple(answers)}, None, tuple(range(len(answers)))
        )
        whole = replace(self, context=10**9)._encode_plain(flat, "error")
        return list(whole.ids), None if whole.types is None else list(whole.types)

    def _shorter(self, prompt: Sequence[Message], answers: tuple[str, ...], where: str) -> _Own | None:
        """The row with its prompt cut until it fits; ``None`` where it cannot be cut so far."""
        messages = tuple(prompt)
        for _ in range(_CUTS + len(messages)):
            found = self._ids([messages], [answers], [where])[0]
            excess = max(map(len, found.ids)) - self.context
            if excess <= 0:
                return found
            shorter = older_cut(self.tokenizer, messages, excess)
            if shorter == messages:
                return None
            messages = shorter
        return None


@dataclass(frozen=True)
class _Own:
    ids: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...] | None


def older_cut(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], excess: int
) -> tuple[Message, ...]:
    """A prompt with at least ``excess`` tokens less, or as many as can go, from its oldest turns.

    The system's message stays. The oldest message of the user is cut at its beginning; where that does not
    do, it goes with its answer, unless it is the only one. When nothing can go, the messages come back as
    they are.
    """
    start = 1 if messages[0].role == "system" else 0
    oldest = messages[start]
    length = len(plain_ids(tokenizer, [oldest.content])[0])
    if length > excess:
        text = shorten_start(tokenizer, oldest.content, excess)
        return (*messages[:start], replace(oldest, content=text), *messages[start + 1 :])
    if len(messages) > start + 1:
        return (*messages[:start], *messages[start + 2 :])
    return messages


def prepare_prefer(
    task: Prefer,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    context: int,
    *,
    forward: bool,
) -> PreferPrompt:
    """Choose how answers are written after prompts.

    Args:
        task: The task.
        tokenizer: The tokenizer.
        kind: Kind of the model.
        context: Longest sequence in tokens.
        forward: Whether the model reads from left to right, so that an answer is scored at its end.

    Raises:
        CapabilityError: For an encoder-decoder, and as for generation.
    """
    if kind == "encoder-decoder":
        raise no_encoder_decoder(type(tokenizer).__name__)
    if not forward:
        notes = ["prompt and answer are read as a pair, without a chat template"]
        if task.chat in ("model", "plain"):
            notes.append(f"chat {task.chat} not used: an encoder reads the plain texts")
        return PreferPrompt(task, tokenizer, "encoder", context, notes=tuple(notes))  # type: ignore[arg-type]
    writer = prepare_generate(task.spoken, tokenizer, "causal", context)
    asked = replace(task, chat_template=writer.task.chat_template)
    return PreferPrompt(
        asked,  # type: ignore[arg-type]
        tokenizer,
        "encoder",
        context,
        notes=writer.notes,
        writer=writer,
    )


def unfit(source: str, numbers: Sequence[int], context: int) -> InputError:
    """That rows do not fit into the context."""
    return InputError(
        f"{len(numbers)} rows are longer than the context"
        if len(numbers) > 1
        else "a row is longer than the context",
        where=f"{source}, {rows_text(numbers)}",
        expected=f"at most {context} tokens, prompt and answer together",
        fix="raise --max-length, shorten them, or let prompts be cut with --too-long shorten",
    )


def no_encoder_decoder(where: str) -> CapabilityError:
    """Why an encoder-decoder gives no reward."""
    return CapabilityError(
        "a reward is one number for prompt and answer together, read at one place of one stack, and an "
        "encoder-decoder divides them between two",
        where=where,
        expected="a causal model, whose reward a policy of the same base can use, or an encoder",
        fix="choose another --model, such as etude",
    )


def _as_text(prompt: Sequence[Message], system: str | None) -> str:
    """A prompt as an encoder reads it: a question alone as it stands, several turns with their speakers."""
    own = list(prompt)
    if system and own[0].role != "system":
        own = [Message("system", system), *own]
    if sum(message.role != "system" for message in own) == 1:
        return "\n\n".join(message.content for message in own)
    return "\n\n".join(_SPEAKERS[message.role] + message.content for message in own)
