from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pegbox.comparison._result import BaseNote
from pegbox.evaluation import Forgetting, PolicyScores, RewardScores, plain, reading
from pegbox.tuning import SideBySide

FORMAT = "pegbox.rlhf/1"


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Args:
        name: ``sft``, ``reward`` or ``policy``.
        method: The method.
        options: Its options.
        source: Where the rows come from; empty where that is not known.
        rows: Rows that it learnt from; of a policy prompts, of DPO pairs.
        parameters: Trained parameters.
        seconds: Wall time of the fit.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    source: str
    rows: int
    parameters: int
    seconds: float


@dataclass(frozen=True)
class PolicyRun:
    """A policy beside the model it was tuned from, and how it came about.

    Args:
        algorithm: ``ppo``, ``rloo`` or ``dpo``.
        base: The base of all stages.
        stages: What was tuned, in order.
        reward: What answers were rewarded by, in words.
        gold: The second reward, which nothing was trained on; ``None`` without.
        reward_scores: How good the reward model is on pairs; ``None`` where that is not known.
        history: Metrics of each step; empty for DPO.
        scores: The policy on prompts that nothing was learnt on.
        answers: Its answers to them beside those of the model before, one each, drawn.
        warnings: Warnings that were given, in order.
        forgetting: Of general text, by ``sft`` and ``policy``; empty where it was not measured.
        settings: Settings of the last stage.
        verdict: What it comes to, in sentences.
        configuration: All options that the result depends on.
        command: How to repeat it.
        versions: Libraries and their versions.
        date: When it was finished, ISO 8601.
        machine: What it ran on, in words.
        seconds: Wall time of the last stage and of judging it.
    """

    algorithm: str
    base: BaseNote
    stages: tuple[Stage, ...]
    reward: str
    gold: str | None
    reward_scores: RewardScores | None
    history: tuple[Mapping[str, Any], ...]
    scores: PolicyScores
    answers: tuple[SideBySide, ...]
    warnings: tuple[str, ...]
    forgetting: Mapping[str, Forgetting]
    settings: Mapping[str, Any]
    verdict: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    machine: str = ""
    seconds: float = 0.0

    @property
    def judge(self) -> str:
        """The reward that decides: ``gold`` where there is one."""
        return "gold" if "gold" in self.scores.rewards else "reward"

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        values = {item.name: plain(getattr(self, item.name)) for item in fields(self)}
        values["scores"] = self.scores.to_json()
        values["reward_scores"] = None if self.reward_scores is None else self.reward_scores.to_json()
        values["forgetting"] = {name: part.to_json() for name, part in self.forgetting.items()}
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PolicyRun:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of an RLHF run", "the run"):
            given = {name: value for name, value in values.items() if name != "format"}
            given["base"] = BaseNote(**given["base"])
            given["stages"] = tuple(Stage(**part) for part in given["stages"])
            given["scores"] = PolicyScores.from_json(given["scores"])
            scores = given["reward_scores"]
            given["reward_scores"] = None if scores is None else RewardScores.from_json(scores)
            given["answers"] = tuple(SideBySide(**part) for part in given["answers"])
            given["forgetting"] = {
                name: Forgetting.from_json(part) for name, part in given["forgetting"].items()
            }
            for name in ("history", "warnings", "verdict"):
                given[name] = tuple(given[name])
            return cls(**given)

    def __str__(self) -> str:
        return "\n".join(self.verdict)
