import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._answer_lines import answer_lines
from pegbox.cli._options import check_share, check_writable, emit, feature_cache, names, say, tell_all
from pegbox.errors import InputError, UsageError

if TYPE_CHECKING:
    from pegbox.data import Examples, Table
    from pegbox.tuning import Tuned

STDIN = "standard input"


def predict(
    tuned: Path,
    data: str = "-",
    *,
    text: str | None = None,
    out: Path | None = None,
    model: str | None = None,
    device: str = "auto",
    too_long: Literal["shorten", "error"] = "shorten",
    decoding: dict[str, Any] | None = None,
    abstain_above: float | None = None,
    no_cache: bool = False,
) -> None:
    """Answer rows with a tuned model: lines of standard input or a file in, csv (labels) or jsonl out.

    Chosen options, tagged sentences, written answers and rewards (of a prompt with an answer, or with two to
    compare) are written as jsonl, one object per row.

    Args:
        tuned: Folder that pegbox fit wrote.
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or - for one text per line of standard input.
        text: Column that stands for the task's text column, or two with a comma, in the task's order.
        out: File to write: csv for labels and their probabilities, jsonl for all else; standard output when
            not given.
        model: Where the base lies now, when its name no longer leads there.
        device: auto, cpu, cuda or mps.
        too_long: What to do with texts that do not fit into the context.
        decoding: How answers are written, in place of what the model was tuned with; for example
            --decoding.max_tokens 64.
        abstain_above: Mark rows whose answer has a probability below 1 less this; 0.2 leaves answers that are
            at least 0.8 sure.
        no_cache: Neither read nor write the feature cache.
    """
    from pegbox._atomic import write_text
    from pegbox.data import read
    from pegbox.models import quiet_libraries
    from pegbox.tuning import Tuned

    check_writable(out, "--out")
    check_share(abstain_above, "--abstain-above")
    quiet_libraries()
    loaded = Tuned.load(
        tuned, model=model, device=device, too_long=too_long, cache=feature_cache(not no_cache), say=say
    )
    loaded = decoded(loaded, decoding)
    kind = loaded.prompt.task.to_json()["task"]
    _check_kind(out, ".csv" if kind == "classify" else ".jsonl")
    table = _lines(loaded, text, kind) if data == "-" else read(data)
    texts = names(text) or loaded.prompt.task.fields
    rows = _rows(loaded, table, texts)
    if kind == "classify":
        content, abstained = _csv(loaded, table, rows, texts, abstain_above)
    else:
        content, abstained = answer_lines(loaded, table, rows, abstain_above)
    if out:
        write_text(out, content)
        marked = "" if abstain_above is None else f", of which {abstained} are marked abstained"
        say(f"{len(table)} rows written to {out}, {_labelled(rows)}{marked}")
    else:
        emit(content)


def _check_kind(out: Path | None, written: str) -> None:
    """Raise UsageError for a file whose name says another format than the one that is written."""
    from pegbox.data import FORMATS

    if out is None or out.suffix.lower() == written or out.suffix.lower() not in FORMATS:
        return
    raise UsageError(
        f"the answers are {written[1:]}, and the file is named as {out.suffix[1:]}",
        where=f"--out {out}",
        expected=f"a name that ends in {written}",
        fix=f"write --out {out.with_suffix(written)}",
    )


def decoded(tuned: "Tuned", values: dict[str, Any] | None) -> "Tuned":
    """The model with another way to write its answers.

    Raises:
        UsageError: For a model that writes none.
    """
    from dataclasses import replace

    from pegbox.tasks import Decoding, Generate, GeneratePrompt

    if values is None:
        return tuned
    task, prompt = tuned.prompt.task, tuned.prompt
    if not isinstance(task, Generate) or not isinstance(prompt, GeneratePrompt):
        raise UsageError(
            "this model writes no answers that could be decoded",
            where="--decoding",
            expected="a model that pegbox sft tuned",
            fix="leave --decoding out",
        )
    way = Decoding.of({**task.decoding.to_json(), **values})
    return replace(tuned, prompt=replace(prompt, task=replace(task, decoding=way)))  # type: ignore[arg-type]


def _lines(tuned: "Tuned", text: str | None, kind: str) -> "Table":
    from pegbox.data import Table

    if kind in ("choose", "prefer"):
        needed = "options" if kind == "choose" else "answers"
        each = "a question and its options" if kind == "choose" else "a prompt and its answer, or two of them"
        raise InputError(
            f"standard input holds one text per line, and this task needs {needed}",
            expected=f"a file with {each} in each row",
            fix="write them into a jsonl file",
        )

    if text is not None:
        raise UsageError(
            "standard input has no columns",
            where=f"--text {text}",
            expected="one text per line",
            fix="leave --text out, or name a file",
        )
    fields = tuned.prompt.task.fields
    if kind == "generate" and len(fields) != 1:
        fields = ("prompt",)
    if len(fields) != 1:
        raise InputError(
            "standard input holds one text per line, and this task needs two",
            expected=f"a file with the columns {' and '.join(fields)}",
            fix="write the pairs into a csv file",
        )
    raw = sys.stdin.buffer.read()
    if not raw:
        raise InputError(
            "standard input is empty",
            expected="one text per line",
            fix="name a file, or see what should have written into the pipe",
        )
    texts = tuple(line.rstrip("\n") for line in io.StringIO(_utf8(raw), newline=None))
    cells: tuple[object, ...] = tuple(line.split() for line in texts) if kind == "tag" else texts
    return Table(STDIN, {fields[0]: cells}, tuple(range(1, len(texts) + 1)))


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            "this is not UTF-8 text",
            where=f"standard input, line {line}",
            expected="UTF-8",
            fix="convert it, for example with iconv -f latin1 -t utf-8",
        ) from None


def _csv(
    tuned: "Tuned", table: "Table", rows: "Examples", texts: Sequence[str], above: float | None
) -> tuple[str, int]:
    """The table's own columns, then label, probability, deviation where known, and all probabilities.

    Beside it how many rows are marked abstained.
    """
    import csv

    answers = dict(zip(rows.numbers, tuned.predict(rows), strict=True))
    extra = ["predicted", "probability", "deviation", *(f"p({label})" for label in tuned.labels)]
    extra += [] if above is None else ["abstained"]
    own = _own_columns(table, extra, texts)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*own, *extra])
    columns = [table.columns[name] for name in own]
    abstained = 0
    for number, *values in zip(table.numbers, *columns, strict=True):
        answer = answers.get(number)
        cells = [""] * len(extra)
        if answer is not None:
            deviation = "" if answer.deviation is None else f"{answer.deviation:.4f}"
            cells = [answer.label, f"{answer.probability:.6f}", deviation]
            cells += [f"{value:.6f}" for value in answer.probabilities.values()]
            if above is not None:
                unsure = answer.probability < 1 - above
                abstained += unsure
                cells.append("yes" if unsure else "no")
        writer.writerow([*map(_csv_cell, values), *cells])
    return stream.getvalue(), abstained


def _csv_cell(value: object) -> object:
    """A cell as csv holds it: lists, objects, true and false as JSON, which is how they are read again."""
    if value is None:
        return ""
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _own_columns(table: "Table", extra: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The table's columns without those of an earlier prediction, which are told and replaced."""
    replaced = [name for name in table.columns if name in extra and name not in texts]
    if replaced:
        say(f"columns of {table.source} replaced by the new answers: {', '.join(replaced)}")
    return [name for name in table.columns if name not in replaced]


def _rows(tuned: "Tuned", table: "Table", texts: Sequence[str]) -> Any:
    """The rows with a text; those without are told and get empty cells."""
    from pegbox.tuning import shape_of

    task = tuned.prompt.task
    if table.source == STDIN and task.to_json()["task"] == "generate":
        return _asked(table, task)
    given = () if tuple(texts) == tuned.prompt.task.fields else texts
    try:
        rows: Any = shape_of(task).rows(task, table, texts=given, labelled=False, on_bad="drop")
    except InputError as error:
        if table.source != STDIN:
            raise
        raise InputError(
            error.what, where=STDIN, expected="one text per line", fix="send at least one line with text"
        ) from None
    tell_all(rows.notes())
    return rows


def _asked(table: "Table", task: Any) -> Any:
    """Each line of standard input as a question; blank ones are told and get empty answers."""
    from dataclasses import replace

    from pegbox.data import from_prompts, rows_text

    if task.template is not None:
        if len(task.fields) == 1:
            return task.read_table(table, answered=False, on_bad="drop")
        raise InputError(
            "standard input holds one text per line, and this model's template takes several",
            expected=f"a file with the columns {' and '.join(task.fields)}",
            fix="write them into a jsonl file",
        )

    lines = list(zip(table.numbers, next(iter(table.columns.values())), strict=True))
    kept = [(number, text) for number, text in lines if str(text).strip()]
    if not kept:
        raise InputError(
            "there is no question", where=STDIN, expected="one text per line", fix="send at least one line"
        )
    if len(kept) < len(lines):
        blank = [number for number, text in lines if not str(text).strip()]
        say(f"{STDIN}: blank lines have no answer ({rows_text(blank)})")
    rows = from_prompts([str(text) for _, text in kept])
    return replace(rows, source=STDIN, numbers=tuple(number for number, _ in kept))


def _labelled(rows: "Examples") -> str:
    """How many rows have an answer, and which have none."""
    from pegbox.data import rows_text

    told = f"{len(rows)} answered"
    if not rows.dropped:
        return told
    have = "has" if len(rows.dropped) == 1 else "have"
    return f"{told} ({rows_text(row.number for row in rows.dropped)} without text {have} empty cells)"
