from collections.abc import Sequence
from dataclasses import replace

from pegbox.data import Examples, Table, examples, find_columns
from pegbox.tasks import Classify
from pegbox.tuning._columns import own_columns


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
    wanted = (label or task.label_column) if labelled else None
    own_columns(task, table, texts, label, labelled)
    columns = find_columns(table, texts=tuple(texts) or task.fields, label=wanted, need_label=labelled)
    rows = examples(table, columns, need_labels=labelled, on_bad=on_bad, min_classes=1)  # type: ignore[arg-type]
    return replace(rows, fields=dict(zip(task.fields, rows.fields.values(), strict=True)))
