"""A policy tuned on a reward, beside the model it was tuned from: the last stage of RLHF and its record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pegbox._atomic import write_text
from pegbox.comparison._files import POLICY, POLICY_RUN, RECORD
from pegbox.comparison._place import machine, now, versions
from pegbox.comparison._policy_run import PolicyRun, Stage
from pegbox.comparison._policy_verdict import verdict
from pegbox.comparison._result import BaseNote
from pegbox.data import Conversations, Dialogue, GeneralText, Preferences
from pegbox.errors import InputError, UsageError
from pegbox.evaluation import Forgetting, PolicyScores, RewardScores
from pegbox.methods import LoRA
from pegbox.models import processes
from pegbox.rlhf import METRICS, Alignment
from pegbox.training import tell
from pegbox.tuning import (
    DPO,
    SCORES,
    SideBySide,
    Tuned,
    align,
    clear_run_folder,
    dpo,
    general_text,
    hold_prompts,
    judge_of,
    read_pairs,
)


@dataclass(frozen=True, eq=False)
class _Tuned:
    """A policy with all that was measured of it."""

    policy: Tuned
    history: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    scores: PolicyScores
    answers: tuple[SideBySide, ...]


@dataclass(frozen=True, eq=False)
class _Job:
    """What a policy is tuned from and by, and what it is judged on; named as in :func:`rlhf`."""

    start: Tuned
    reward: Any
    rows: Any
    run: Path
    held: Any
    gold: Any
    adapter: LoRA | None
    measure: Mapping[str, int]
    say: Callable[[str], None]

    def aligned(self, settings: Alignment) -> _Tuned:
        """By reinforcement learning."""
        found = align(
            self.start, self.reward, self.rows, settings=settings, held=self.held, gold=self.gold,
            adapter=self.adapter, folder=self.run, resume=self.run.exists(), judged=True, say=self.say,
        )  # fmt: skip
        scores, answers = found.side_by_side(**self.measure)
        return _Tuned(found.tuned, tuple(found.history), tuple(found.aligner.monitor.lines), scores, answers)

    def direct(self, settings: DPO) -> _Tuned:
        """By pairs; what it is judged by is read first, so that a mistake there is told before training."""
        asked: Any = self.reward.prompt.task if isinstance(self.reward, Tuned) else None
        dialogue: Dialogue = getattr(asked, "dialogue", "none")
        pairs, held = read_pairs(self.rows, dialogue, say=self.say), self.held
        if held is None:
            count = len(pairs)
            pairs, held = hold_prompts(pairs, settings.seed)
            self.say(f"{len(held)} of {count} pairs held out, by whose prompts the policy is judged")
        judge = judge_of(
            self.start, self.reward, held, gold=self.gold, max_tokens=settings.max_tokens, seed=settings.seed,
            say=self.say,
        )  # fmt: skip
        policy = dpo(
            self.start, pairs, beta=settings.beta, training=settings.training, adapter=self.adapter,
            folder=self.run, resume=self.run.exists(), seed=settings.seed, dialogue=dialogue, say=self.say,
        )  # fmt: skip
        return _Tuned(policy, (), (), *judge.measured(policy, **self.measure))


def rlhf(
    sft: Tuned | str | Path,
    reward: Any,
    rows: Conversations | Preferences | str | Path,
    *,
    folder: str | Path,
    settings: Alignment | DPO | None = None,
    held: Conversations | Preferences | str | Path | None = None,
    gold: Any = None,
    forgetting: GeneralText | str | Path | None = None,
    frontier_draws: int = 256,
    frontier_prompts: int = 8,
    adapter: LoRA | None = None,
    reward_scores: RewardScores | None = None,
    resamples: int = 1000,
    overwrite: bool = False,
    configuration: Mapping[str, Any] | None = None,
    command: str = "",
    say: Callable[[str], None] = tell,
    **options: Any,
) -> PolicyRun:
    """Tune a policy by PPO, RLOO or DPO, judge it beside where it started, and keep a record of all of it.

    Writes ``policy`` (the tuned model), ``metrics.jsonl`` and ``rlhf.json`` into the folder; a call that was
    stopped goes on where it was.

    Args:
        sft: The tuned model to start from, or its folder; see :func:`pegbox.tuning.align`.
        reward: Reward model, function, ``module:function`` or file of rules.
        rows: Prompts; for DPO preferences.
        folder: Where everything goes.
        settings: :class:`pegbox.rlhf.Alignment` for PPO and RLOO, :class:`pegbox.tuning.DPO` for DPO.
        held: Prompts that the policy is judged on; else a tenth of the rows, at most 128.
        gold: A second reward that nothing is trained on.
        forgetting: General text to tell it by, see :func:`pegbox.tuning.general_text`; ``None`` for none.
        frontier_draws: Answers of each model per prompt for the frontier; 0 measures none.
        frontier_prompts: Prompts of the frontier.
        adapter: LoRA of the policy where the tuned model has no adapter of its own.
        reward_scores: How good the reward model is; read from its folder where that holds them.
        resamples: Bootstrap resamples of the intervals.
        overwrite: Whether a policy that lies there may be replaced.
        configuration: What is kept with the record beside the settings.
        command: The same.
        say: Receives lines for the user.
        options: As for :meth:`Tuned.load`, where folders are given.

    Raises:
        CapabilityError: For a model that writes no text.
        InputError: For rows and rewards that cannot be used.
        UsageError: For wrong settings, and a folder that holds a finished run.
    """
    place = Path(folder)
    _check_free(place, overwrite)
    start = _start(sft, say, options)
    processes.join(start.base.device)
    if isinstance(reward, str | Path) and Path(reward).is_dir():
        reward_scores = reward_scores or _kept_scores(Path(reward))
        reward = Tuned.load(reward, model=start.base, say=say)
    settings = settings or Alignment()
    text = _text(start, forgetting, say)
    measure = {"draws": frontier_draws, "prompts": frontier_prompts, "resamples": resamples}
    job = _Job(start, reward, rows, place / POLICY_RUN, held, gold, adapter, measure, say)
    done = job.aligned(settings) if isinstance(settings, Alignment) else job.direct(settings)
    started = time.perf_counter()
    forgot = _forgetting(start, done.policy, text, say, settings.seed)
    judging = (done.scores.seconds or 0.0) + time.perf_counter() - started
    run = PolicyRun(
        algorithm=settings.algorithm if isinstance(settings, Alignment) else "dpo",
        base=BaseNote.of(start.base),
        stages=tuple(_stages(start, reward, done.policy, rows)),
        reward=_name(reward),
        gold=None if gold is None else _name(gold),
        reward_scores=reward_scores,
        history=done.history,
        scores=done.scores,
        answers=done.answers,
        warnings=done.warnings,
        forgetting=forgot,
        settings=settings.to_json(),
        configuration=dict(configuration or {}),
        command=command,
        versions=versions(),
        machine=machine(start.base.device),
        date=now(),
        seconds=done.policy.cost.seconds + judging,
    )
    run = replace(run, verdict=tuple(verdict(run)))
    if not processes.rank():  # the first of several processes saves
        _save(run, done, place)
    return run


def _start(sft: Tuned | str | Path, say: Callable[[str], None], options: dict[str, Any]) -> Tuned:
    """The model to start from, loaded where a folder is given."""
    if not isinstance(sft, Tuned):
        return Tuned.load(sft, say=say, **options)
    if options:
        raise UsageError(
            f"{', '.join(options)} would say how a folder is loaded, and a loaded model is given",
            where="options",
            expected="a folder, or no such options",
            fix="leave them out",
        )
    return sft


def _check_free(place: Path, overwrite: bool) -> None:
    taken = [name for name in (RECORD, POLICY, METRICS) if (place / name).exists()]
    if taken and not overwrite and (RECORD in taken or not (place / POLICY_RUN).exists()):
        raise UsageError(
            "the folder holds a finished run" if RECORD in taken else f"there is a {taken[0]} in the folder",
            where=str(place),
            expected="a new folder",
            fix="choose another, or allow it to be replaced",
        )


def _save(run: PolicyRun, done: _Tuned, place: Path) -> None:
    """Write the policy, its metrics and the record; then the run folder goes."""
    done.policy.save(place / POLICY, scores=done.scores, overwrite=True)  # type: ignore[arg-type]
    (place / METRICS).unlink(missing_ok=True)
    if done.history:
        write_text(place / METRICS, "".join(json.dumps(one) + "\n" for one in done.history))
    write_text(
        place / RECORD, json.dumps(run.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    (place / POLICY_RUN / METRICS).unlink(missing_ok=True)
    clear_run_folder(place / POLICY_RUN)


def _text(start: Tuned, text: Any, say: Callable[[str], None]) -> GeneralText | None:
    """General text, read."""
    if isinstance(text, str | Path):
        return general_text(text, base=start.base, task=start.prompt.task, say=say)
    found: GeneralText | None = text
    return found


def _forgetting(
    start: Tuned, policy: Tuned, text: GeneralText | None, say: Callable[[str], None], seed: int
) -> dict[str, Forgetting]:
    """Bits per byte of general text under the tuned model and the policy, each against the base."""
    if text is None:
        return {}
    found = {"sft": start} if start.module is not None else {}
    return {
        name: tuned.forgetting(text, seed=seed, say=say)
        for name, tuned in {**found, "policy": policy}.items()
    }


def _stages(start: Tuned, reward: Any, policy: Tuned, rows: Any) -> list[Stage]:
    found, source = [_stage("sft", start)], getattr(rows, "source", rows)
    if isinstance(reward, Tuned):
        found.append(_stage("reward", reward))
    return [*found, replace(_stage("policy", policy), source=Path(str(source)).name, rows=policy.cost.rows)]


def _stage(name: str, tuned: Tuned) -> Stage:
    known = tuned.provenance
    return Stage(
        name,
        tuned.method.name,
        dict(tuned.method.options()),
        "" if known is None else known.source,
        tuned.cost.rows if known is None else known.rows,
        tuned.cost.parameters,
        tuned.cost.seconds,
    )


def _name(reward: Any) -> str:
    if isinstance(reward, Tuned):
        return "reward model"
    return str(getattr(reward, "__name__", reward))


def _kept_scores(folder: Path) -> RewardScores | None:
    """Scores that a reward model's folder holds."""
    path = folder / SCORES
    if not path.exists():
        return None
    try:
        return RewardScores.from_json(json.loads(path.read_text("utf-8")))
    except (InputError, ValueError):
        return None
