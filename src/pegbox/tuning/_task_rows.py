from collections.abc import Sequence
from dataclasses import replace

from pegbox.data import Examples, Table, examples, find_columns
from pegbox.errors import InputError, UsageError
from pegbox.tasks import Classify


def task_rows(
    task: Classify,
    table: Table,
    *,
    texts: Sequence[str] = (),
    label: str | None = None,
    labelled: bool = True,
    on_bad: str = "error",
) -> Examples:
    """The rows of a table as the task names their columns; see :meth:`pegbox.Tuned.read`."""
    if texts and len(texts) != len(task.fields):
        raise UsageError(
            f"text columns given: {len(texts)}, those of the task: {len(task.fields)}",
            where=f"--text {','.join(texts)}",
            expected=f"columns that stand for {' and '.join(task.fields)}, in this order",
            fix="name as many columns, with commas between them",
        )
    wanted = (label or task.label_column) if labelled else None
    _check_own_columns(task, table, texts, label, labelled)
    columns = find_columns(table, texts=tuple(texts) or task.fields, label=wanted, need_label=labelled)
    rows = examples(table, columns, need_labels=labelled, on_bad=on_bad, min_classes=1)  # type: ignore[arg-type]
    return replace(rows, fields=dict(zip(task.fields, rows.fields.values(), strict=True)))


def _check_own_columns(
    task: Classify, table: Table, texts: Sequence[str], label: str | None, labelled: bool
) -> None:
    """Refuse a table without the task's own columns where no others were named to stand for them."""
    own = [] if texts else [(name, "--text") for name in task.fields]
    own += [(task.label_column, "--label")] if labelled and label is None and task.label_column else []
    for name, option in own:
        if name not in table.columns:
            raise InputError(
                f"There is no column {name!r}, which the task was tuned on",
                where=table.source,
                expected=f"one of: {', '.join(table.names)}",
                fix=f"name the column that stands for it with {option}",
            )
