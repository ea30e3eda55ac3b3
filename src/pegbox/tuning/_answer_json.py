from __future__ import annotations

from typing import Any

from pegbox.data import Conversations, Rows
from pegbox.errors import UsageError
from pegbox.tasks import Task
from pegbox.tuning._shapes import Choice, Prediction, Preferred, Rewarded, Tagged, Written

_UNSURE = {"tag": "tags have", "generate": "free text has", "reward": "rewards of single answers have"}


def answer_json(answer: Any, abstain_above: float | None = None) -> dict[str, Any]:
    """An answer of :meth:`pegbox.Tuned.predict` as JSON: probabilities and rewards with six digits.

    Args:
        answer: The answer.
        abstain_above: Also says in ``abstained`` whether its probability is below 1 less this.
    """
    found, probability = _parts(answer)
    if abstain_above is not None and probability is not None:
        found["abstained"] = probability < 1 - abstain_above
    return found


def answer_kind(task: Task, rows: Rows) -> str:
    """The task's name, or ``reward`` where a preference is asked about single answers."""
    kind: str = task.to_json()["task"]
    return "reward" if kind == "prefer" and isinstance(rows, Conversations) else kind


def check_abstains(task: Task, rows: Rows, abstain_above: float | None) -> None:
    """Raise UsageError where answers to such rows have no probability to abstain by."""
    kind = answer_kind(task, rows)
    if kind in _UNSURE and abstain_above is not None:
        raise UsageError(
            f"{_UNSURE[kind]} no one probability per row to abstain by",
            where=f"abstain_above {abstain_above:g}",
            expected="a model that classifies or chooses",
            fix="leave it out",
        )


def _parts(answer: Any) -> tuple[dict[str, Any], float | None]:
    """The answer as JSON, and how probable it is where that is known."""
    if isinstance(answer, Prediction):
        found: dict[str, Any] = {"predicted": answer.label, "probability": _six(answer.probability)}
        if answer.deviation is not None:
            found["deviation"] = _six(answer.deviation)
        found["probabilities"] = {name: _six(value) for name, value in answer.probabilities.items()}
        return found, answer.probability
    if isinstance(answer, Choice):
        return _chosen(answer, answer.probabilities), answer.probability
    if isinstance(answer, Preferred):
        both = (answer.probability, 1 - answer.probability)
        rewards = [_six(value) for value in answer.rewards]
        return {**_chosen(answer, both), "rewards": rewards}, both[answer.index]
    if isinstance(answer, Written):
        found = {"predicted": answer.text, "finished": answer.finished}
        if answer.probability is not None:
            found["probability"] = _six(answer.probability)
        return found, None
    if isinstance(answer, Rewarded):
        standard = None if answer.standard is None else _six(answer.standard)
        return {"reward": _six(answer.reward), "reward_standard": standard}, None
    assert isinstance(answer, Tagged)
    entities = [{**vars(entity), "probability": _six(entity.probability)} for entity in answer.entities]
    return {"predicted": list(answer.tags), "entities": entities}, None


def _chosen(answer: Choice | Preferred, probabilities: tuple[float, ...]) -> dict[str, Any]:
    return {
        "predicted": answer.text,
        "predicted_index": answer.index,
        "probability": _six(probabilities[answer.index]),
        "probabilities": [_six(value) for value in probabilities],
    }


def _six(value: float) -> float:
    return round(value, 6)
