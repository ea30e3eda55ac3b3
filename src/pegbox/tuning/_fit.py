from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

import torch

from pegbox.data import Rows
from pegbox.errors import CapabilityError, InputError, UsageError, check_whole
from pegbox.methods import Attached, Method, Solved, Solver, build
from pegbox.models import Base, FeatureCache, load, score_layer
from pegbox.tasks import Classify, Generate, Prefer, Task, TooLong
from pegbox.training import Settings, resume_hint, resumed_by, tell, train
from pegbox.tuning._claim import claimed
from pegbox.tuning._demonstrate import Demonstrate, check_trained, shown
from pegbox.tuning._given import rows_given
from pegbox.tuning._hold_out import labelled_rows, stopped_by
from pegbox.tuning._label_words import searched
from pegbox.tuning._once import Once
from pegbox.tuning._provenance import Provenance
from pegbox.tuning._readout import as_read, with_readout
from pegbox.tuning._replay import Replay, check_replay, read_replay, remembered
from pegbox.tuning._run_folder import check_resumable
from pegbox.tuning._seen import row_digests
from pegbox.tuning._shapes import Shape, Work, scaled_on_training_rows, shape_of
from pegbox.tuning._training import Training
from pegbox.tuning._trunk_rows import TrunkCache, with_trunk_cached
from pegbox.tuning._tuned import Cost, Tuned


def fit(
    base: Base | str | Path,
    task: Task,
    method: Method | str = "closed-form",
    *,
    rows: Rows | str | Path | None = None,
    valid: Rows | str | Path | None = None,
    training: Training | None = None,
    demonstrations: Demonstrate | None = None,
    label_words: Literal["auto"] | None = None,
    replay: Replay | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    too_long: TooLong = "shorten",
    cache: FeatureCache | None = None,
    say: Callable[[str], None] = tell,
) -> Tuned:
    """Tune a base on labelled rows.

    Args:
        base: A loaded base, or a name for :func:`pegbox.load`.
        task: The task.
        method: A method, or the name of one with its defaults.
        rows: Labelled rows, or a file or hub id of them; by default those that the task was read from.
        valid: The same for early stopping of gradient methods; by default a seeded share of the training
            rows.
        training: How gradient methods are trained.
        demonstrations: Solved training rows that gradient methods show before each question.
        label_words: ``auto`` searches label words on the rows to train on: :func:`search_label_words`.
        replay: General text that gradient methods replay, so that the model keeps what it could say.
        folder: Where gradient methods keep their checkpoints; needed to resume, else a temporary folder.
        resume: Continue from the newest checkpoint in ``folder``.
        seed: Seed of splits, demonstrations, initial values and batches.
        too_long: What to do with texts that do not fit.
        cache: Feature cache; none when ``None``.
        say: Receives lines for the user.

    Raises:
        InputError: For rows that cannot be learnt from.
        CapabilityError: For a method that cannot work on this base.
        UsageError: For no such method, wrong settings, or a resume of another fit.
    """
    say = Once.of(say)
    _check_kinds(base=base, training=training, demonstrations=demonstrations, replay=replay)
    seed = check_whole(seed, 0, "seed")
    method = build(method) if isinstance(method, str) else method
    training = training or Training()
    settings = _settings(method, training, seed)
    check_trained(method.name, demonstrations, trained=settings is not None)
    check_replay(method, replay)
    if resume and isinstance(method, Attached):
        check_resumable(folder)
    shape = shape_of(task)
    _check_words_asked(task, demonstrations=demonstrations, label_words=label_words)
    _check_too_long(task, too_long)
    rows = _some(_read(rows if rows is not None else task.rows, task, "rows", say))
    held: Rows | None = _read(valid, task, "valid", say)
    shape.check(task, rows, held, say)
    base = base if isinstance(base, Base) else _loaded(base, method, say)
    task = with_readout(task, base, method, say)
    base = shape.base(as_read(base, task), method)
    method.check(base)
    settings = _computable(settings, base)
    if settings is not None:
        settings = training.for_base(settings, method, base, say)
    replayed = None if replay is None else read_replay(replay, base, task, say)
    used, held = (rows, held) if settings is None else stopped_by(rows, held, seed, say)
    if label_words is not None:
        task = searched(base, task, used, label_words, seed=seed, too_long=too_long, cache=cache, say=say)
    prompt = method.prompt(base, base.prepare(task.with_rows(None)))
    for note in prompt.notes:
        say(note)
    work = Work(base, prompt, seed, too_long, cache, say, demonstrations, replayed)
    if isinstance(method, Solver):
        tuned = _Run(shape, work).solve(method, rows)
        return _with_provenance(tuned, work, task, rows, rows, None)
    assert isinstance(method, Attached)
    assert settings is not None
    run = _Run(shape, shown(work, used) if demonstrations is not None else work)
    tuned = run.train(method, used, held, settings, folder, resume, training.trunk_cache)
    if isinstance(task, Prefer):
        tuned = scaled_on_training_rows(tuned, used)  # type: ignore[arg-type]
    return _with_provenance(tuned, work, task, rows, used, held)


def _with_provenance(
    tuned: Tuned, work: Work, task: Task, rows: Rows, used: Rows, valid: Rows | None
) -> Tuned:
    """The tuned model with the facts on its rows: ``used`` of ``rows`` were learnt from."""
    notes = (*task.notes, *rows.notes())
    facts = Provenance.of(work.base, work.prompt, used, valid=valid, notes=notes, too_long=work.too_long)
    return replace(tuned, provenance=facts)


def _loaded(name: str | Path, method: Method, say: Callable[[str], None]) -> Base:
    """The base by its name, in as many bits as the method wants."""
    if method.quantise:
        say(f"{method.name}: {name} is loaded in 4 bits ({method.quantise})")
    return load(name, quantise=method.quantise)


def _check_words_asked(task: Task, **given: object) -> None:
    """Refuse what only a task with label words has."""
    for name, value in given.items():
        if value is not None and not isinstance(task, Classify):
            raise UsageError(
                f"{name.replace('_', ' ')} belong to classification, and this is no such task",
                where=f"{name}={value!r}",
                expected="a Classify task",
                fix=f"leave {name} out",
            )


def _check_too_long(task: Task, too_long: TooLong) -> None:
    """Only rows of prompts and answers are left out for their length; others are read by their beginnings."""
    dropped = isinstance(task, Generate | Prefer)
    if too_long not in get_args(TooLong) or (too_long == "drop" and not dropped):
        raise UsageError(
            "texts that do not fit cannot be left out in this task"
            if too_long == "drop"
            else f"there is no way {too_long!r} to treat texts that do not fit",
            where=f"too_long={too_long!r}",
            expected="shorten or error" + (", or drop" if dropped else ""),
            fix="leave too_long out",
        )


def _check_kinds(**given: object) -> None:
    """Refuse settings of another kind, such as a mapping in the place of `Training`."""
    kinds = {
        "base": (Base, str, Path),
        "training": (Training, NoneType),
        "demonstrations": (Demonstrate, NoneType),
        "replay": (Replay, NoneType),
    }
    for name, value in given.items():
        if not isinstance(value, kinds[name]):
            wanted = " or ".join(kind.__name__ for kind in kinds[name] if kind is not NoneType)
            raise UsageError(
                f"{name} cannot be of the type {type(value).__name__}",
                where=name,
                expected=wanted,
                fix=f"write {name}=pegbox.{kinds[name][0].__name__}(...)" if name != "base" else "",
            )


def _read(rows: Any, task: Task, name: str, say: Callable[[str], None]) -> Any:
    """Rows as they are, or those of a file by the task's own columns."""
    if isinstance(rows, str | Path):
        return labelled_rows(task, rows, say=say)
    return None if rows is None else rows_given(rows, name)


def _some(rows: Rows | None) -> Rows:
    if rows is None or not len(rows):
        raise InputError("there are no rows to tune on", expected="labelled rows", fix="pass rows=")
    return rows


def _settings(method: Method, training: Training, seed: int) -> Settings | None:
    """The engine's settings, none for a solver, checked before any work is done."""
    if isinstance(method, Attached):
        return training.settings(method, seed)
    if isinstance(method, Solver):
        return None
    raise UsageError(
        f"{method!r} is no method",
        expected="the name of a method, a Solver or an Attached method",
        fix="see pegbox methods",
    )


def _computable(settings: Settings | None, base: Base) -> Settings | None:
    """Without bf16 on a 4-bit base in float16: its layers answer in float16, which autocast does not mix."""
    if settings is None or base.quantise is None or base.dtype != torch.float16:
        return settings
    if settings.precision == "bf16":
        raise CapabilityError(
            "a base in 4 bits and float16 cannot be trained in bf16",
            where=base.name,
            expected="training.precision float32 or auto, or a base in bfloat16 or float32",
            fix="leave training.precision or the dtype out",
        )
    return replace(settings, precision="float32")


@dataclass(frozen=True, eq=False)
class _Run:
    """One fit: what both roads, solving and training, have in common."""

    shape: Shape
    work: Work

    def solve(self, method: Solver, rows: Rows) -> Tuned:
        solve = self.shape.solver(self.work, method, rows)
        started = time.perf_counter()
        solved = solve()
        cost = Cost(time.perf_counter() - started, solved.parameters, len(rows))
        return self._tuned(method, rows, cost, solved)

    def train(
        self,
        method: Attached,
        rows: Rows,
        valid: Rows | None,
        settings: Settings,
        folder: str | Path | None,
        resume: bool,
        trunk_cache: TrunkCache,
    ) -> Tuned:
        work = self.work
        coded = self.shape.trainable(work, [part for part in (rows, valid) if part is not None])
        started = time.perf_counter()
        module = method.attach(work.base, work.prompt, seed=work.seed)
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        key = {**self._key(method, rows, valid), "trunk_cache": trunk_cache}
        replayed = work.replayed
        replay = None if replayed is None else replayed.rows(work.base, work.prompt, work.seed)
        with self._folder(folder) as place, claimed(place, key, resume=resume):
            coded = with_trunk_cached(
                module, coded, wanted=trunk_cache, precision=settings.precision, say=work.say
            )
            history = train(
                module,
                coded[0],
                settings=settings,
                folder=place,
                valid=coded[1] if valid is not None else None,
                head=score_layer(module),
                replay=replay,
                resume=resume,
                say=work.say,
            )
        module = method.trained(work.base, module.requires_grad_(False).eval())
        seconds = max(time.perf_counter() - started, history.seconds)
        details = {
            "seed": work.seed,
            "history": history.to_json(),
            **remembered(replayed, replay, history, work.seed),
        }
        solved = Solved(work.prompt, module, details=details)
        tuned = self._tuned(method, rows, Cost(seconds, parameters, len(rows)), solved)
        seen = frozenset(row_digests(valid) if valid is not None else ())
        return replace(tuned, validation_rows=seen, weights=method.whole)

    @contextmanager
    def _folder(self, folder: str | Path | None) -> Iterator[Path]:
        if folder is not None:
            yield Path(folder)
            return
        hint = resume_hint() or ""
        how = "to be able to resume, pass folder=" if "resume=True" in hint else "the next call begins afresh"
        with tempfile.TemporaryDirectory(prefix="pegbox-") as temporary, resumed_by(None):
            try:
                yield Path(temporary)
            except KeyboardInterrupt:
                self.work.say(f"the checkpoints are removed: {how}")
                raise

    def _key(self, method: Method, rows: Rows, valid: Rows | None) -> dict[str, str]:
        """All that a fit depends on and the engine cannot see."""
        work = self.work
        # How answers are decoded later changes nothing of the fit.
        saved = {key: value for key, value in work.prompt.task.to_json().items() if key != "decoding"}
        task = json.dumps(saved, sort_keys=True)
        replayed = {} if work.replayed is None else {"replay": work.replayed.key}
        return replayed | {
            "base": work.base.fingerprint,
            "number format": str(work.base.dtype),
            "max_length": str(work.base.context),
            "pooling": work.base.pooling,
            "too_long": work.too_long,
            "task": sha256(task.encode()).hexdigest(),
            "method": f"{method.name} {method.options()}",
            "training rows": rows.digest(),
            "validation rows": valid.digest() if valid is not None else "none",
            "seed": str(work.seed),
        }

    def _tuned(self, method: Method, rows: Rows, cost: Cost, solved: Solved) -> Tuned:
        return Tuned(
            base=self.work.base,
            prompt=solved.prompt,
            method=method,
            module=solved.module,
            posterior=solved.posterior,
            details=solved.details,
            cost=cost,
            training_rows=frozenset(row_digests(rows)),
            features=solved.features,
            cache=self.work.cache,
            too_long=self.work.too_long,
            say=self.work.say,
            grow=solved.grow,
        )
