from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from pegbox.data import Examples, Questions, rows_text
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._choose import Choose
from pegbox.tasks._classify import Demonstration
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._tokens import plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class OptionRows:
    """Questions as token ids, with the tokens of each option.

    Args:
        prompts: The rows up to where an option stands.
        options: Token ids of each row's options.
        divisors: What each option's log-probability is divided by.
    """

    prompts: Encoded
    options: tuple[tuple[tuple[int, ...], ...], ...]
    divisors: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.options)

    def notes(self) -> list[str]:
        """A line on shortened rows, if any."""
        return self.prompts.notes()


@dataclass(frozen=True)
class OptionPairs:
    """Each question with each of its options as token ids, for a head that scores such pairs.

    Args:
        encoded: All pairs.
        rows: Places of each row's pairs, in the order of its options.
        shortened: Row numbers with a pair that was cut to fit the context.
    """

    encoded: Encoded
    rows: tuple[range, ...]
    shortened: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def notes(self) -> list[str]:
        """A line on shortened rows, if any."""
        if not self.shortened:
            return []
        counts = f"{len(self.shortened)} of {len(self)} questions"
        return [f"{self.encoded.source}: {counts} shortened to fit the context ({rows_text(self.shortened)})"]


@dataclass(frozen=True)
class ChoosePrompt(Prompt):
    """A multiple-choice task made ready for one tokenizer."""

    task: Choose  # type: ignore[assignment]

    def with_demonstrations(self, demonstrations: Sequence[Demonstration]) -> ChoosePrompt:
        """The same prompt with other solved rows before each question."""
        return replace(self, task=replace(self.task, demonstrations=tuple(demonstrations)))

    def encode_options(self, rows: Questions, *, too_long: TooLong = "shorten") -> OptionRows:
        """Turn questions and options into token ids; a question that is too long is cut, never an option.

        Args:
            rows: The rows.
            too_long: ``"shorten"`` cuts and counts, ``"error"`` refuses.

        Raises:
            InputError: When an option cannot be said, template and options alone do not fit, or a question is
                too long and must not be cut.
        """
        options = self._option_ids(rows)
        # The last token of an option is never read, only predicted.
        rests = [max(map(len, row)) - 1 for row in options]
        plain = Examples(rows.source, rows.fields, None, rows.numbers)
        shown = self.demonstration_ids()
        encoded = self.encode_after(plain, [shown] * len(rows), too_long=too_long, rests=rests)
        return OptionRows(encoded, options, self._divisors(rows, options))

    def encode_pairs(self, rows: Questions, *, too_long: TooLong = "shorten") -> OptionPairs:
        """Turn each question (after its context) and each of its options into a pair, as an encoder reads it.

        Args:
            rows: The rows.
            too_long: ``"shorten"`` cuts the longer of both and counts, ``"error"`` refuses.

        Raises:
            InputError: When a pair is too long and must not be cut.
        """
        asked = ["\n".join(texts) for texts in zip(*rows.fields.values(), strict=True)]
        places = list(accumulate(map(len, rows.options), initial=0))
        owners = [row for row, options in enumerate(rows.options) for _ in options]
        flat = Examples(
            rows.source,
            {
                "question": tuple(asked[row] for row in owners),
                "option": tuple(text.strip() for options in rows.options for text in options),
            },
            None,
            tuple(rows.numbers[row] for row in owners),
        )
        encoded = self._encode_plain(flat, too_long)
        cut = tuple(sorted(set(encoded.shortened)))
        return OptionPairs(encoded, tuple(map(range, places[:-1], places[1:])), cut)

    def demonstration_ids(self) -> list[int]:
        """Token ids of all demonstrations, each with its right option and a separator."""
        return [token for row in self.solved_ids(self.task.demonstrations) for token in row]

    def _option_ids(self, rows: Questions) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Tokens of each option as it stands after the template."""
        before, gap = self.template.before(dict.fromkeys(self.task.fields, "x")), self.template.gap()
        flat = [option.strip() for options in rows.options for option in options]
        head = plain_ids(self.tokenizer, [before])[0]
        whole = plain_ids(self.tokenizer, [before + gap + option for option in flat])
        alone = plain_ids(self.tokenizer, [gap + option for option in flat])
        said = iter(
            tuple(ids[len(head) :] if ids[: len(head)] == head else own)
            for ids, own in zip(whole, alone, strict=True)
        )
        found = tuple(tuple(next(said) for _ in options) for options in rows.options)
        for options, ids, number in zip(rows.options, found, rows.numbers, strict=True):
            mute = next((text for text, tokens in zip(options, ids, strict=True) if not tokens), None)
            if mute is not None:
                raise InputError(
                    f"the tokenizer has no token for the option {mute!r}",
                    where=f"{rows.source}, row {number}",
                    expected="options of visible characters",
                    fix="mend the row or leave it out",
                )
        return found

    def _divisors(
        self, rows: Questions, options: Sequence[Sequence[Sequence[int]]]
    ) -> tuple[tuple[float, ...], ...]:
        if self.task.normalise == "tokens":
            return tuple(tuple(float(len(ids)) for ids in row) for row in options)
        if self.task.normalise == "characters":
            return tuple(tuple(float(len(text.strip())) for text in row) for row in rows.options)
        return tuple((1.0,) * len(row) for row in options)

    def _solved(self, shown: Demonstration) -> list[str]:
        return self._solved_by(shown.label, shown)


def prepare_choose(
    task: Choose, tokenizer: PreTrainedTokenizerBase, kind: Kind, context: int
) -> ChoosePrompt:
    """Fill in the template.

    Raises:
        CapabilityError: For a model that does not go on a text from left to right.
    """
    if kind == "encoder":
        notes: tuple[str, ...] = ("a head scores each question with each option as a pair, without template",)
        return ChoosePrompt(task, tokenizer, kind, context, notes=notes)  # type: ignore[arg-type]
    if kind != "causal":
        reason = {
            "masked": "a masked model fills one mask, and options are of several words",
        }.get(kind, f"options are not scored by {kind} models yet")
        raise CapabilityError(
            reason,
            where=f"a {kind} model",
            expected="a causal model, or an encoder whose head scores pairs",
            fix="use --method head, choose a decoder-only model such as etude, or an encoder"
            if kind == "masked"
            else "choose a decoder-only model, such as etude, or an encoder",
        )
    notes = ()
    if task.template is None:
        notes = (f"template {task.wording!r} (derived; override with --template)",)
        task = replace(task, template=task.wording)
    return ChoosePrompt(task, tokenizer, kind, context, notes=notes)  # type: ignore[arg-type]
