from collections.abc import Sequence

from pegbox.data import Table
from pegbox.errors import InputError, UsageError
from pegbox.tasks import Task


def own_columns(task: Task, table: Table, texts: Sequence[str], label: str | None, labelled: bool) -> None:
    """Refuse a table without the task's own columns where no others were named to stand for them.

    Raises:
        InputError: When one is not there.
        UsageError: For more or fewer text columns than the task has.
    """
    if texts and len(texts) != len(task.fields):
        raise UsageError(
            f"text columns given: {len(texts)}, those of the task: {len(task.fields)}",
            where=f"--text {','.join(texts)}",
            expected=f"columns that stand for {' and '.join(task.fields)}, in this order",
            fix="name as many columns, with commas between them",
        )
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
