import json
from typing import TYPE_CHECKING, Any

from pegbox.cli._options import say

if TYPE_CHECKING:
    from pegbox.data import Rows, Table
    from pegbox.tuning import Tuned

EXTRA = {
    "tag": ("predicted", "entities"),
    "choose": ("predicted", "predicted_index", "probability", "probabilities"),
    "generate": ("predicted", "finished"),
    "prefer": ("predicted", "predicted_index", "probability", "probabilities", "rewards"),
    "reward": ("reward", "reward_standard"),
}


def answer_lines(tuned: "Tuned", table: "Table", rows: "Rows", above: float | None = None) -> tuple[str, int]:
    """One JSON object per row of the table: its own columns, then the answer; null where there is none.

    Beside it how many rows are marked abstained.
    """
    from pegbox.tuning import answer_json, answer_kind, check_abstains

    check_abstains(tuned.prompt.task, rows, above)
    kind = answer_kind(tuned.prompt.task, rows)
    extra = EXTRA[kind] if above is None else (*EXTRA[kind], "abstained")
    if kind == "generate" and tuned.prompt.task.among:  # type: ignore[union-attr, attr-defined]
        extra = (*extra, "probability")
    replaced = [name for name in table.columns if name in extra]
    if replaced:
        say(f"columns of {table.source} replaced by the new answers: {', '.join(replaced)}")
    own = [name for name in table.columns if name not in extra]
    answers = dict(zip(rows.numbers, tuned.predict(rows), strict=True))
    lines, abstained = [], 0
    for index, number in enumerate(table.numbers):
        cells: dict[str, Any] = {name: table.columns[name][index] for name in own}
        answer = answers.get(number)
        line = {**cells, **(dict.fromkeys(extra) if answer is None else answer_json(answer, above))}
        abstained += bool(line.get("abstained"))
        lines.append(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    return "".join(lines), abstained
