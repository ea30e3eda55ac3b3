"""What a model writes: instructions, conversations, data-to-text, SQL."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pegbox.data import Conversations, Message, Table, from_prompts, rows_text
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.evaluation import GenerationScores, SqlTable, parse_record, score_texts, which_metrics
from pegbox.methods import FewShot, Method, Solved, Solver, ZeroShot
from pegbox.models import Base, decode
from pegbox.tasks import TABLE, Demonstration, Generate, GeneratePrompt, Spoken
from pegbox.training import Trainable
from pegbox.tuning._columns import own_columns
from pegbox.tuning._seen import told_seen
from pegbox.tuning._shapes._response_rows import ResponseRows
from pegbox.tuning._shapes._shape import Work

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


LIKELIHOODS = ("perplexity", "bits_per_byte")


@dataclass(frozen=True)
class Written:
    """What a model wrote for one prompt.

    Args:
        text: The answer, without spaces around it.
        tokens: Its tokens.
        finished: Whether the model ended it; otherwise it was cut at the most tokens.
        probability: Of an answer chosen among given ones, its probability among them.
    """

    text: str
    tokens: int
    finished: bool
    probability: float | None = None


class GenerateShape:
    """See :class:`pegbox.Generate`."""

    def check(
        self, task: Generate, rows: Conversations, valid: Conversations | None, say: Callable[[str], None]
    ) -> None:
        """All rows must have an answer."""
        for part in (rows, valid):
            if part is not None:
                task.tell_absent(part, say)

    def base(self, base: Base, method: Method) -> Base:
        """The base itself; methods that solve or train a head are refused."""
        if base.whole is not None or method.capability.needs_head:
            raise CapabilityError(
                f"{method.name} answers by a head, which writes no text",
                expected="a method that changes what the model says, such as lora",
                fix="use --method lora",
            )
        if isinstance(method, Solver) and not isinstance(method, ZeroShot | FewShot):
            raise CapabilityError(
                f"{method.name} fits one output per label, and free text has no labels",
                expected="zero-shot, few-shot, or a method that trains, such as lora",
                fix="use pegbox sft, or --method lora",
            )
        return base

    def solver(self, work: Work, method: Solver, rows: Conversations) -> Callable[[], Solved]:
        """Zero-shot as it is; few-shot with rows drawn at random, as earlier turns."""
        _room(_prompt(work.prompt), work.base)
        if isinstance(method, FewShot):
            return partial(_few_shot, work, method, rows)
        return partial(Solved, work.prompt)

    def trainable(self, work: Work, parts: Sequence[Conversations]) -> list[Trainable]:
        """The conversations of each part."""
        _room(_prompt(work.prompt), work.base)
        found: list[Trainable] = []
        for part in parts:
            spoken = _prompt(work.prompt).speak(part, too_long=work.too_long)
            for note in spoken.notes():
                work.say(note)
            rows = ResponseRows(work.base, spoken)
            count = f"{len(spoken):,} sequence{'s' if len(spoken) > 1 else ''}"
            work.say(
                f"{part.source}: {count}, {rows.tokens:,} of {sum(rows.lengths):,} tokens are answers, which "
                "alone are learnt"
            )
            found.append(rows)
        return found

    def rows(
        self,
        task: Generate,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Conversations:
        """Conversations by the task's own columns, or by others that stand for them."""
        if not texts and label is None and labelled:
            own_columns(task, table, texts, label, labelled)
        return task.read_table(table, texts=texts, label=label, answered=labelled, on_bad=on_bad)

    def logits(self, tuned: Tuned, rows: Conversations) -> Tensor:
        """Never: free text has no logits per label."""
        raise CapabilityError(
            "free text has no probability per label",
            where=f"{tuned.base.name}, {rows.source}",
            expected="predict or evaluate, which write answers",
            fix="use a classification task for labels",
        )

    def predict(
        self,
        tuned: Tuned,
        inputs: Sequence[str] | Sequence[Sequence[Message | Mapping[str, str]]] | Conversations,
    ) -> list[Written]:
        """An answer for each prompt, a text or a conversation that ends with the user."""
        rows = inputs if isinstance(inputs, Conversations) else from_prompts(inputs)
        if not len(rows):
            return []
        task = _prompt(tuned.prompt).task
        return _chosen(tuned, _asked(rows)) if task.among else _written(tuned, _asked(rows))

    def evaluate(self, tuned: Tuned, rows: Conversations, *, resamples: int, seed: int) -> GenerationScores:
        """Metrics of what is written, and how well the right answers are said, by the base alone too."""
        from pegbox.tuning._tuned import base_alone

        prompt = _prompt(tuned.prompt)
        prompt.task.tell_absent(rows, tuned.say)
        started = time.perf_counter()
        spoken = prompt.speak(rows, too_long=tuned.too_long)
        for note in spoken.notes():
            tuned.say(note)
        if spoken.left_out:
            rows = rows.select(sorted(set(spoken.rows)))
            spoken = prompt.speak(rows, too_long=tuned.too_long)
        measured = _measured(rows, prompt.task)
        written = None if rows.plain else self.predict(tuned, rows)
        predictions = None if written is None else [answer.text for answer in written]
        seconds = time.perf_counter() - started
        told_seen(tuned, rows)
        told: dict[str, Any] = {"resamples": resamples, "seed": seed}
        said = _said(tuned, spoken, rows)
        scores = score_texts(predictions, **measured, **said, **told)
        scores = replace(scores, counts={**scores.counts, **_cut(tuned, rows, written or [])})
        if tuned.module is not None and tuned.origin is None:
            if prompt.soft is not None:
                spoken = prompt.without_soft().speak(rows, too_long=tuned.too_long)
            before = _said(base_alone(tuned), spoken, rows)
            alone = score_texts(None, **before, **told)
            metrics = {f"base_{name}": value for name, value in alone.metrics.items()}
            scores = replace(scores, metrics={**scores.metrics, **metrics})
        return replace(scores, seconds=seconds)


def _cut(tuned: Tuned, rows: Conversations, written: Sequence[Written]) -> dict[str, int]:
    """How many answers were cut at the most tokens, where some were; told, as parts of them are scored."""
    most, count = _prompt(tuned.prompt).task.decoding.max_tokens, sum(not one.finished for one in written)
    if not count:
        return {}
    tuned.say(
        f"{rows.source}: {count} of {len(written)} answers do not end within {most} tokens and are scored as "
        "far as they go (--decoding.max_tokens)"
    )
    return {"cut_answers": count}


def _measured(rows: Conversations, task: Generate) -> dict[str, Any]:
    """What the rows are measured by: right answers, records and tables where they have them."""
    if rows.plain or rows.references is None:
        return {}
    asked = [messages[-1].content if messages else "" for messages in rows.prompts()]
    if task.template is not None and len(task.fields) == 1 and task.fields[0] in rows.cells:
        # What the template says around a record is no part of it.
        asked = [str(cell) for cell in rows.cells[task.fields[0]]]
    records = [parse_record(text) for text in asked]
    cells = zip(rows.numbers, rows.cells.get(TABLE, ()), strict=False)
    tables = [_table(cell, f"{rows.source}, row {number}") for number, cell in cells] or None
    wanted = which_metrics(rows.references, records=records, tables=tables)
    known: dict[str, Any] = {"references": rows.references, "metrics": (*wanted, *LIKELIHOODS)}
    if "slot_error_rate" in wanted:
        known["records"] = records
    if "sql_execution" in wanted:
        known["tables"] = tables
    return known


def _table(cell: object, where: str) -> SqlTable | None:
    """A cell with a table, as WikiSQL writes them: its name, header (or columns) and rows."""
    if not isinstance(cell, Mapping):
        return None
    columns = cell.get("header") or cell.get("columns") or ()
    try:
        lines = tuple(map(tuple, cell.get("rows") or ()))
        return SqlTable(str(cell.get("name") or "data"), tuple(columns), lines)
    except (InputError, TypeError) as error:
        raise InputError(
            f"the table of this row cannot be used: {getattr(error, 'what', error)}",
            where=where,
            expected="a name, a header and rows with a cell for each column",
            fix="mend it, or leave the column of tables out",
        ) from None


def _said(tuned: Tuned, spoken: Spoken, rows: Conversations) -> dict[str, Any]:
    """How well the right answers are said: nats, tokens and bytes of each row."""
    nats, tokens = ResponseRows(tuned.base, spoken).nats(tuned.network)
    sizes = np.array(
        [
            sum(len(message.content.encode()) for message in messages if message.role == "assistant")
            for messages in rows.messages
        ]
    )
    sizes[tokens == 0] = 0
    return {"nats": nats, "tokens": tokens, "sizes": sizes}


def _room(prompt: GeneratePrompt, base: Base) -> int:
    """Most tokens of a question that leave room for an answer.

    Raises:
        UsageError: When hardly any are left.
    """
    most = prompt.task.decoding.max_tokens
    if base.kind != "causal" or prompt.task.among:
        return base.context
    least = max(2, base.context // 8)
    if base.context - most < least:
        raise UsageError(
            "the answers leave no room for questions",
            where=f"decoding.max_tokens {most}, {base.name}, context {base.context} tokens",
            expected=f"at most {base.context - least}",
            fix=f"set for example --decoding.max_tokens {base.context // 2}, or raise --max-length",
        )
    return base.context - most


def _written(tuned: Tuned, rows: Conversations) -> list[Written]:
    prompt, base = _prompt(tuned.prompt), tuned.base
    decoding = prompt.task.decoding
    prompts, cut = prompt.ask(rows, room=_room(prompt, base))
    if cut:
        _tell_cut(tuned, rows, cut, f"that {decoding.max_tokens} tokens of an answer fit")
    found = decode(tuned.network, base, prompts, decoding, stops=prompt.stops, start=prompt.start)
    texts = prompt.tokenizer.batch_decode(found, skip_special_tokens=True)
    return [
        Written(text.strip(), len(ids), len(ids) < decoding.max_tokens)
        for text, ids in zip(texts, found, strict=True)
    ]


def _tell_cut(tuned: Tuned, rows: Conversations, cut: Sequence[int], so: str) -> None:
    """Tell of questions that leave no room for their answers, or refuse them."""
    if tuned.too_long == "error":
        raise InputError(
            f"{len(cut)} questions are too long to be answered",
            where=f"{rows.source}, {rows_text(cut)}",
            expected=f"at most {tuned.base.context} tokens, question and answer together, so {so}",
            fix="shorten them, set --decoding.max_tokens lower, or use --too-long shorten",
        )
    tuned.say(
        f"{rows.source}: {len(cut)} of {len(rows)} questions shortened, so {so} into the context "
        f"({rows_text(cut)})"
    )


def _chosen(tuned: Tuned, rows: Conversations) -> list[Written]:
    """The most probable of the answers to choose among, each scored with its end."""
    prompt, among = _prompt(tuned.prompt), _prompt(tuned.prompt).task.among
    scores = np.empty((len(rows), len(among)))
    tokens = np.empty((len(rows), len(among)), dtype=np.int64)
    cut: set[int] = set()
    for place, answer in enumerate(among):
        spoken = prompt.speak(_answered(rows, answer), too_long="shorten")
        cut.update(spoken.shortened)
        nats, said = ResponseRows(tuned.base, spoken).nats(tuned.network)
        scores[:, place], tokens[:, place] = -nats, said
    if cut:
        _tell_cut(tuned, rows, sorted(cut), "that the longest of the answers to choose among fits")
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    best = scores.argmax(1)
    return [
        Written(among[place], int(tokens[line, place]), True, float(weights[line, place]))
        for line, place in enumerate(best)
    ]


def _asked(rows: Conversations) -> Conversations:
    """The same conversations without their last answers."""
    return rows if rows.references is None else replace(rows, messages=rows.prompts(), references=None)


def _answered(rows: Conversations, answer: str) -> Conversations:
    """The same questions, all with this answer."""
    messages = tuple((*asked, Message("assistant", answer)) for asked in rows.messages)
    return replace(rows, messages=messages, references=((answer,),) * len(rows))


def _few_shot(work: Work, method: FewShot, rows: Conversations) -> Solved:
    """Show rows drawn at random with their answers, fewer where the context does not hold them."""
    if method.selection != "random":
        raise CapabilityError(
            "similar demonstrations are chosen per label, and free text has none",
            where="few-shot selection similar",
            expected="random",
            fix="leave selection at random",
        )
    prompt = _prompt(work.prompt)
    if rows.plain:
        raise CapabilityError(
            "solved questions are shown, and plain texts have none",
            where=rows.source,
            expected="rows with prompts and answers",
            fix="use zero-shot",
        )
    single = [
        index
        for index, messages in enumerate(rows.messages)
        if [message.role for message in messages if message.role != "system"] == ["user", "assistant"]
    ]
    drawn = random.Random(work.seed).sample(single, min(method.per_class, len(single)))
    shown = [
        Demonstration({"prompt": rows.messages[i][-2].content}, rows.messages[i][-1].content) for i in drawn
    ]
    longest = max(map(len, prompt.ask(_asked(rows), room=prompt.context)[0]))
    while shown:
        one = _asked(rows.select([0]))
        whole = len(prompt.with_demonstrations(shown).ask(one, room=10**9)[0][0])
        plain = len(prompt.ask(one, room=10**9)[0][0])
        room = prompt.context - (whole - plain) - prompt.task.decoding.max_tokens
        if room >= min(longest, prompt.context // 2):
            break
        shown.pop()
    if len(shown) < method.per_class:
        few = len(single) < method.per_class
        why = f"{len(single)} rows have one turn" if few else f"the context holds {prompt.context} tokens"
        work.say(f"{len(shown)} instead of {method.per_class} demonstrations: {why}")
    return Solved(prompt.with_demonstrations(shown), details={"demonstrations": len(shown)})


def _prompt(prompt: object) -> GeneratePrompt:
    assert isinstance(prompt, GeneratePrompt)
    return prompt
