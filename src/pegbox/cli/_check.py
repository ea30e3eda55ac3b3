from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import check_writable, emit, emit_result, names
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.data import Findings, Table


def check(
    data: str,
    *,
    text: str | None = None,
    label: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    model: str | None = None,
    task: Literal["auto", "classify", "choose", "tag", "generate", "prefer"] = "auto",
    rows_format: Literal["auto", "instruction", "prompt", "messages", "sharegpt", "input", "text"] = "auto",
    split: str | None = None,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
) -> None:
    """Examine a file of labelled rows: balance, lengths, duplicates, conflicts, leakage.

    Args:
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or hub id.
        text: Text column, or two with a comma for pairs; guessed when not given.
        label: Label column; guessed when not given.
        valid: Validation file to look for leakage in.
        test: Test file to look for leakage in.
        model: Model whose tokenizer measures lengths in tokens.
        task: What is asked of a row: classify (one label), choose (one of its own options), tag (entities),
            generate (a text) or prefer (which of two answers is better); auto tells by the columns.
        rows_format: How rows of prompts and answers are written, as for pegbox sft; auto: by the columns.
        split: Split of a hub data set.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
    """
    from pegbox.data import read

    check_writable(out, "--out")
    table = read(data, split=split)
    others = {name: read(path) for name, path in (("valid", valid), ("test", test)) if path}
    written = None if rows_format == "auto" else rows_format
    lengths = _lengths(model) if model else None
    findings = examine(table, task, names(text), label, others, lengths, written)
    emit_result(findings.to_json(), format, out, lambda: emit("\n".join(findings.lines()) + "\n"))


def examine(
    table: "Table",
    task: str,
    texts: tuple[str, ...],
    label: str | None,
    others: "Mapping[str, Table]",
    lengths: "Callable[[list[str]], list[int]] | None" = None,
    rows_format: str | None = None,
) -> "Findings":
    """What the data doctor finds in a table, by its kind of task; ``auto`` tells by the columns."""
    from pegbox import data
    from pegbox.tasks import guess_task

    kind = task
    if task == "auto":
        # Texts alone have no label, and pegbox sft learns them; only what it learns has a format.
        learnt = rows_format is not None or set(table.names) - {"id"} == {"text"}
        kind = "generate" if learnt else guess_task(table)
    if rows_format is not None and kind != "generate":
        raise UsageError(
            "only rows of prompts and answers have a format",
            where=f"--rows-format {rows_format}, --task {task}",
            expected="--task generate, or auto",
            fix="leave --rows-format out",
        )
    options: Any = {"others": others, "token_lengths": lengths}
    if kind == "tag":
        words = texts[0] if texts else None
        return data.check_sentences(table, data.find_tag_columns(table, tokens=words, tags=label), **options)
    if kind == "choose":
        found = data.find_choice_columns(table, texts=texts, answer=label)
        return data.check_questions(table, found, **options)
    if kind == "generate":
        asked = data.find_conversation_columns(table, format=rows_format, texts=texts, label=label)
        return data.check_conversations(table, asked, **options)
    if kind == "prefer":
        if label is not None:
            raise UsageError(
                "preferences have no column of labels",
                where=f"--label {label}",
                expected="the columns of prompt, chosen and rejected",
                fix="name them with --text prompt,chosen,rejected",
            )
        return data.check_preferences(table, data.find_preference_columns(table, texts=texts), **options)
    return data.check(table, data.find_columns(table, texts=texts, label=label), **options)


def _lengths(model: str) -> Callable[[list[str]], list[int]]:
    from pegbox.models import quiet_libraries, tokenizer

    quiet_libraries()
    loaded = tokenizer(model)
    return lambda texts: [len(ids) for ids in loaded(texts, verbose=False)["input_ids"]]
