import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pegbox.data._bad import Dropped, check_on_bad, keep_usable, left_out
from pegbox.data._columns import require_columns
from pegbox.data._examples import text_fault
from pegbox.data._table import Table, counted
from pegbox.errors import InputError

QUESTION_NAMES = ("question", "stem", "question_stem", "query", "prompt", "sentence", "ctx", "text", "input")
CONTEXT_NAMES = ("context", "passage", "fact", "article", "story", "fact1", "background")
CHOICE_NAMES = ("choices", "options", "endings", "candidates", "answers", "alternatives")
ANSWER_NAMES = ("answer", "answerkey", "answer_key", "label", "gold", "correct", "target", "answer_index")
_SERIES = re.compile(r"(?:(?:choice|option|opt|ending|answer|sol|candidate)[ _]?)?([0-9]+|[a-zA-Z])")
_EXPECTED = "a question, two or more options, and one of them as the answer, in each row"
_FIX = "mend these rows, or leave them out with --on-bad-rows drop"

AnswerKind = Literal["names", "text", "numbers from 0", "numbers from 1", "letters"]


@dataclass(frozen=True)
class Questions:
    """Questions with their options, as many as each has.

    Args:
        source: Where the rows come from.
        fields: Text column name to texts ``(rows,)``: the question, after its context where there is one.
        options: Options of each row.
        answers: Index of each row's right option, or ``None`` when unknown.
        numbers: 1-based row numbers in the source.
        dropped: Rows left out, and why.
        remarks: What else was changed or noticed, one line each.
    """

    source: str
    fields: dict[str, tuple[str, ...]]
    options: tuple[tuple[str, ...], ...]
    answers: tuple[int, ...] | None
    numbers: tuple[int, ...]
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def labels(self) -> None:
        """Questions have no class of their own, by which a split could be stratified."""

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Each row's texts and its options, sorted: the same question in another order is the same row."""
        rows = zip(*self.fields.values(), strict=True)
        return tuple((*row, *sorted(options)) for row, options in zip(rows, self.options, strict=True))

    @property
    def chance(self) -> float:
        """Accuracy of a guess: the mean of one over the number of options."""
        return sum(1 / len(options) for options in self.options) / len(self)

    def select(self, indices: Sequence[int]) -> "Questions":
        """Return the rows at these 0-based positions; what was dropped before belongs to the whole only."""
        return Questions(
            self.source,
            {name: tuple(texts[i] for i in indices) for name, texts in self.fields.items()},
            tuple(self.options[i] for i in indices),
            None if self.answers is None else tuple(self.answers[i] for i in indices),
            tuple(self.numbers[i] for i in indices),
        )

    def digest(self) -> str:
        """Return the SHA-256 of texts, options and answers in order, not of source and row numbers."""
        content = [list(self.fields.items()), self.options, self.answers]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""
        return left_out(self.dropped) + list(self.remarks)


@dataclass(frozen=True)
class ChoiceColumns:
    """Which columns mean what.

    Args:
        texts: The question, after its context where there is one.
        options: One column of lists, or one column per option.
        answer: The answer's column; ``None`` when there is none.
        kind: How it names the right option; ``None`` to find out.
        note: The line to print.
    """

    texts: tuple[str, ...]
    options: tuple[str, ...]
    answer: str | None
    kind: AnswerKind | None = None
    note: str = ""


def find_choice_columns(
    table: Table,
    *,
    texts: Sequence[str] = (),
    options: Sequence[str] = (),
    answer: str | None = None,
    need_answer: bool = True,
) -> ChoiceColumns:
    """Decide which columns hold question, options and answer: as given, else guessed from names and contents.

    Args:
        table: The table as read.
        texts: The question's column, or the context's and the question's.
        options: One column of lists (or of ``{"text": [...], "label": [...]}``), or one column per option.
        answer: The answer's column.
        need_answer: Whether there must be one.

    Raises:
        InputError: A named column is not there, or one cannot be found.
    """
    require_columns(table, [*texts, *options, *([answer] if answer else [])])
    guessed = [name for name, given in (("--text", texts), ("--label", answer)) if not given]
    free = [name for name in table.names if name not in texts and name != answer]
    options = tuple(options) or _guess_options(table, free)
    free = [name for name in free if name not in options]
    if answer is None and need_answer:
        answer = _named(ANSWER_NAMES, free)
    free = [name for name in free if name != answer]
    if not texts:
        words = [name for name in free if any(isinstance(cell, str) for cell in table.columns[name])]
        question, context = _named(QUESTION_NAMES, words), _named(CONTEXT_NAMES, words)
        texts = tuple(name for name in (context, question) if name and question)
    missing = [
        what
        for what, found in (("options", options), ("question", texts), ("answer", answer or not need_answer))
        if not found
    ]
    if missing:
        raise InputError(
            f"No column looks like the {' or the '.join(missing)} of a multiple-choice task",
            where=table.source,
            expected=f"{_EXPECTED}; the columns are: {', '.join(table.names)}",
            fix="name the question with --text and the answer with --label; options are a column of lists "
            "called choices, or columns such as A, B, C, D or choice1, choice2",
        )
    note = f"text column{'s' if len(texts) > 1 else ''} {', '.join(map(repr, texts))}, options in "
    note += f"{', '.join(map(repr, options))}, " + (f"answer column {answer!r}" if answer else "no answer")
    how = f"guessed; override with {', '.join(guessed)}" if guessed else "as given"
    return ChoiceColumns(tuple(texts), options, answer, None, f"{note} ({how})")


def questions(
    table: Table, columns: ChoiceColumns, *, need_answers: bool = True, on_bad: str = "error"
) -> tuple[Questions, AnswerKind | None]:
    """Return the rows of a table as questions, and how their answers name an option.

    An answer is the option's text, a letter, a number counted from 0 or from 1, or, where the options have
    names of their own, one of these. Which of them is decided over the whole column: numbers count from 0
    when one of them is 0, from 1 when one is the number of its row's options, else from 0, which is said.

    Args:
        table: The table as read.
        columns: Which columns mean what.
        need_answers: Whether each row must have an answer; otherwise answers are None.
        on_bad: Whether rows that cannot be used are an error or left out, each named.

    Raises:
        InputError: Bad rows (all of them named), or no usable row.
    """
    check_on_bad(on_bad, ("error", "drop"))
    answer = columns.answer if need_answers else None
    if need_answers and answer is None:
        raise InputError("There is no column of answers", where=table.source, fix="name it with --label")
    require_columns(table, [*columns.texts, *columns.options, *([answer] if answer else [])])
    found = [_options(table, columns.options, i) for i in range(len(table))]
    cells = table.columns[answer] if answer else (None,) * len(table)
    kind, remark = (None, "") if answer is None else _kind(answer, cells, found, columns.kind)
    faults = [_row_fault(table, columns.texts, i) or _options_fault(found[i][0]) for i in range(len(table))]
    gold = [
        -1 if fault or kind is None else _place(kind, cell, *row)
        for fault, cell, row in zip(faults, cells, found, strict=True)
    ]
    if kind is not None:
        faults = [
            fault or (_answer_fault(cell, len(row[0]), kind) if place < 0 else "")
            for fault, cell, row, place in zip(faults, cells, found, gold, strict=True)
        ]
    dropped = tuple(Dropped(n, fault) for n, fault in zip(table.numbers, faults, strict=True) if fault)
    kept = keep_usable(table, dropped, on_bad, expected=_EXPECTED, fix=_FIX)
    rows = [index for index, fault in enumerate(faults) if not fault]
    made = Questions(
        table.source,
        {name: tuple(map(str, kept.columns[name])) for name in columns.texts},
        tuple(tuple(map(str, found[index][0])) for index in rows),
        tuple(gold[index] for index in rows) if kind is not None else None,
        kept.numbers,
        dropped,
        (*table.notes, *([remark] if remark else [])),
    )
    return made, kind


def from_questions(inputs: Sequence[Sequence[object]], names: Sequence[str] = ("question",)) -> Questions:
    """Return questions in memory without answers, numbered from 1.

    Args:
        inputs: For each row its texts in the order of ``names``, then the list of its options.
        names: The text columns.

    Raises:
        InputError: For a row of another form.
    """
    rows = []
    for number, item in enumerate(inputs, 1):
        parts = list(item) if isinstance(item, list | tuple) else []
        options = parts[-1] if len(parts) == len(names) + 1 else None
        fault = next((fault for fault in map(text_fault, parts[:-1]) if fault), "") if parts else ""
        fault = fault or (_options_fault(options) if isinstance(options, list | tuple) else "no options")
        if fault:
            raise InputError(
                fault.capitalize(),
                where=f"questions given in memory, row {number}",
                expected=f"({', '.join(names)}, [option, option, ...])",
                fix="write for example [('How many?', ['one', 'two'])]",
            )
        rows.append(parts)
    fields = {name: tuple(str(row[i]) for row in rows) for i, name in enumerate(names)}
    options_found = tuple(tuple(map(str, row[-1])) for row in rows)
    return Questions("questions given in memory", fields, options_found, None, tuple(range(1, len(rows) + 1)))


def renamed(rows: Questions, names: Sequence[str]) -> Questions:
    """The rows with other names for their text columns, in the same order."""
    return replace(rows, fields=dict(zip(names, rows.fields.values(), strict=True)))


def _options(table: Table, names: Sequence[str], index: int) -> tuple[list[object], list[str]]:
    """A row's options, and their own names where they have some."""
    cells = [table.columns[name][index] for name in names]
    if len(names) > 1:
        last = max((i for i, cell in enumerate(cells) if not text_fault(cell)), default=-1)
        return cells[: last + 1], []
    cell = cells[0]
    if isinstance(cell, Mapping):
        texts, own = cell.get("text"), cell.get("label")
        return (list(texts), [str(name) for name in own or ()]) if isinstance(texts, list) else ([], [])
    return (list(cell), []) if isinstance(cell, list | tuple) else ([], [])


def _row_fault(table: Table, texts: Sequence[str], index: int) -> str:
    faults = ((text_fault(table.columns[name][index]), name) for name in texts)
    return next((f"{fault} in column {name!r}" for fault, name in faults if fault), "")


def _options_fault(options: Sequence[object]) -> str:
    if len(options) < 2:
        return counted(len(options), "option")
    fault = next((fault for fault in map(text_fault, options) if fault), "")
    return f"an option is {fault}" if fault else ""


def _kind(
    name: str,
    cells: Sequence[object],
    found: Sequence[tuple[list[object], list[str]]],
    given: AnswerKind | None,
) -> tuple[AnswerKind, str]:
    """How a column names the right options, and a line on it; the kind that fits most rows."""
    if given is not None:
        return given, ""
    fits = {
        kind: sum(_place(kind, cell, *row) >= 0 for cell, row in zip(cells, found, strict=True))
        for kind in get_args(AnswerKind)
    }
    # Of numbers that fit both ways a 0 or the number of options decides, even where other rows are wrong.
    numbers = [_number(cell) for cell in cells]
    zero = 0 in numbers
    full = any(number == len(row[0]) for number, row in zip(numbers, found, strict=True))
    best: AnswerKind = max(fits, key=lambda kind: fits[kind])
    if best not in ("numbers from 0", "numbers from 1"):
        return best, f"answer column {name!r}: {'names of the options' if best == 'names' else best}"
    if zero or full:
        best = "numbers from 0" if zero else "numbers from 1"
        return best, f"answer column {name!r}: {best}"
    return "numbers from 0", f"answer column {name!r}: taken as numbers from 0, though none is 0"


def _place(kind: AnswerKind, cell: object, options: Sequence[object], names: Sequence[str]) -> int:
    """Index of the option that a cell names, -1 where it names none."""
    text = str(cell).strip() if isinstance(cell, str | int) and not isinstance(cell, bool) else ""
    place = -1
    if kind == "names":
        place = names.index(text) if text in names else -1
    elif kind == "text" and isinstance(cell, str):
        same = [str(option).strip() for option in options]
        place = same.index(text) if same.count(text) == 1 else -1
    elif kind == "letters" and re.fullmatch(r"[A-Za-z]\)?|\([A-Za-z]\)", text):
        place = ord(text.strip("()").upper()) - ord("A")
    elif kind.startswith("numbers"):
        number = _number(cell)
        place = -1 if number is None else number - int(kind[-1])
    return place if 0 <= place < len(options) else -1


def _number(cell: object) -> int | None:
    if isinstance(cell, bool):
        return None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() else None
    if isinstance(cell, str):
        return int(cell) if re.fullmatch(r"\s*[0-9]{1,3}\s*", cell) else None
    return cell if isinstance(cell, int) else None


def _answer_fault(cell: object, options: int, kind: str) -> str:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "no answer"
    shown = repr(cell if len(str(cell)) <= 40 else str(cell)[:39] + "…")
    read = {"names": "the options' names", "text": "the options' texts"}.get(kind, kind)
    return f"the answer {shown} is none of {options} options (read as {read})"


def _guess_options(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    lists = [
        name
        for name in names
        if any(isinstance(cell, list | tuple | Mapping) for cell in table.columns[name][:100])
    ]
    named = _named(CHOICE_NAMES, lists)
    if named or lists:
        return (named or lists[0],)
    series: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _SERIES.fullmatch(name):
            stem = name[: match.start(1)]
            series.setdefault(stem.lower(), {})[match[1].lower()] = name
    best = max(series.values(), key=len, default={})
    ordered = sorted(best, key=lambda key: (not key.isdigit(), int(key) if key.isdigit() else 0, key))
    return tuple(best[key] for key in ordered) if len(best) > 1 else ()


def _named(names: Sequence[str], found: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in reversed(found)}
    return next((by_name[name] for name in names if name in by_name), None)
