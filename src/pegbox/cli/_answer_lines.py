import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pegbox.cli._options import say
from pegbox.data import Conversations
from pegbox.errors import UsageError

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


_UNSURE = {"tag": "tags have", "generate": "free text has", "reward": "rewards of single answers have"}


def answer_lines(
    tuned: "Tuned", table: "Table", rows: "Rows", kind: str, above: float | None = None
) -> tuple[str, int]:
    """One JSON object per row of the table: its own columns, then the answer; null where there is none.

    Beside it how many rows are marked abstained.
    """
    if kind == "prefer" and isinstance(rows, Conversations):
        kind = "reward"
    _check_sure(kind, above)
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
        values = [None] * len(extra) if answer is None else list(_values(answer, kind, above))
        line = {**cells, **dict(zip(extra, values, strict=True))}
        abstained += above is not None and bool(line["abstained"])
        lines.append(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    return "".join(lines), abstained


def _check_sure(kind: str, above: float | None) -> None:
    if kind in _UNSURE and above is not None:
        raise UsageError(
            f"{_UNSURE[kind]} no one probability per row to abstain by",
            where=f"--abstain-above {above:g}",
            expected="a model that classifies or chooses",
            fix="leave it out",
        )


def _values(answer: Any, kind: str, above: float | None) -> Iterator[Any]:
    if kind == "generate":
        yield from (answer.text, answer.finished)
        if answer.probability is not None:
            yield round(answer.probability, 6)
        return
    if kind == "reward":
        standard = answer.standard
        yield from (round(answer.reward, 6), None if standard is None else round(standard, 6))
        return
    if kind == "prefer":
        both = (answer.probability, 1 - answer.probability)
        yield from (answer.text, answer.index, round(both[answer.index], 6))
        yield [round(value, 6) for value in both]
        yield [round(value, 6) for value in answer.rewards]
        if above is not None:
            yield both[answer.index] < 1 - above
        return
    if kind == "choose":
        yield from (answer.text, answer.index, round(answer.probability, 6))
        yield [round(value, 6) for value in answer.probabilities]
        if above is not None:
            yield answer.probability < 1 - above
        return
    yield list(answer.tags)
    yield [
        {
            "type": entity.type,
            "start": entity.start,
            "end": entity.end,
            "text": entity.text,
            "probability": round(entity.probability, 6),
        }
        for entity in answer.entities
    ]
