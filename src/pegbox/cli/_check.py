from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pegbox.cli._options import check_writable, emit, names


def check(
    data: str,
    *,
    text: str | None = None,
    label: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    model: str | None = None,
    split: str | None = None,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
) -> None:
    """Examine a file of labelled rows: balance, lengths, duplicates, conflicts, leakage.

    Args:
        data: csv, tsv, json, jsonl, parquet file or hub id.
        text: Text column, or two with a comma for pairs; guessed when not given.
        label: Label column; guessed when not given.
        valid: Validation file to look for leakage in.
        test: Test file to look for leakage in.
        model: Model whose tokenizer measures lengths in tokens.
        split: Split of a hub data set.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
    """
    import json

    from pegbox._atomic import write_text
    from pegbox.data import check as examine
    from pegbox.data import find_columns, read

    check_writable(out, "--out")
    table = read(data, split=split)
    columns = find_columns(table, texts=names(text), label=label)
    others = {name: read(path) for name, path in (("valid", valid), ("test", test)) if path}
    findings = examine(table, columns, others=others, token_lengths=_lengths(model) if model else None)
    content = json.dumps(findings.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    emit((content if format == "json" else "\n".join(findings.lines())) + "\n")
    if out:
        write_text(out, content + "\n")


def _lengths(model: str) -> Callable[[list[str]], list[int]]:
    from pegbox.models import quiet_libraries, tokenizer

    quiet_libraries()
    loaded = tokenizer(model)
    return lambda texts: [len(ids) for ids in loaded(texts, verbose=False)["input_ids"]]
