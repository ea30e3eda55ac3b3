"""What the verbs that tune have in common."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import check_least, first, names, say, tell_all, words
from pegbox.cli._seeds import several_seeds
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.cli._output import Output
    from pegbox.data import Rows
    from pegbox.methods import Method
    from pegbox.models import Base
    from pegbox.tasks import Task, TaskKind
    from pegbox.tuning import Replay, Training, Tuned


def task_of(
    data: str,
    kind: "TaskKind | Literal['auto']",
    *,
    text: str | None,
    label: str | None,
    template: str | None,
    label_words: str | None,
    readout: Literal["words", "head"],
    split: str | None,
    on_bad: str,
) -> "Task":
    """The task that a file of labelled rows asks, its notes told; the options are those of ``pegbox fit``."""
    from pegbox.tasks import task_from_file
    from pegbox.tuning import read_by

    found = task_from_file(
        data, kind=kind, texts=names(text), label=label, template=template, label_words=words(label_words),
        split=split, on_bad=on_bad,
    )  # fmt: skip
    asked = read_by(found, readout)
    tell_all(asked.notes)
    return asked


def replay_of(source: str | None, ratio: float | None, readout: str = "words") -> "Replay | None":
    """The replay of ``--replay`` and ``--replay-ratio``."""
    from pegbox.tuning import Replay

    if source is not None and readout == "head":
        raise UsageError(
            "a head stands in place of the output layer, which general text would be said by",
            where=f"--replay {source} with --readout head",
            expected="--replay with an answer by label words",
            fix="leave --replay or --readout head out",
        )

    if source is None and ratio is not None:
        raise UsageError(
            "there is no text to replay a share of",
            where=f"--replay-ratio {ratio:g}",
            expected="--replay FILE, or --replay auto for etude",
            fix="name the text, or leave --replay-ratio out",
        )
    return None if source is None else Replay(source, Replay.ratio if ratio is None else ratio)


def checked_seeds(
    seed: int, seeds: int | str | None, share: float, test: str | None
) -> tuple[int, ...] | None:
    """The seeds of ``--seeds``, once all that concerns seeds and the rows held out is checked."""
    check_least(seed, 0, "--seed")
    several = several_seeds(seeds, first=seed)
    if not 0 <= share < 1:
        raise UsageError(
            "the share to hold out is no share",
            where=f"--holdout {share}",
            expected="0 to below 1",
            fix="write for example --holdout 0.2, or 0 for none",
        )
    if several and share == 0 and not test:
        raise UsageError(
            "several seeds are compared on rows that they were not tuned on, and there are none",
            where="--holdout 0 with --seeds",
            expected="--test FILE, or a share above 0",
            fix="leave --holdout out",
        )
    return several


def training_for(method: "Method", given: Mapping[str, Any] | None, seed: int) -> "Training":
    """The settings, checked before any work; those that a method without steps has no use for are told."""
    from pegbox.methods import Attached
    from pegbox.tuning import Training

    settings = Training.of(given or {})
    if isinstance(method, Attached):
        settings.settings(method, seed)
    elif given:
        unused = ", ".join(f"--training.{name}" for name in given)
        say(f"{method.name} takes no training steps, so {unused} plays no part")
    return settings


def needed_bits(method: "Method", model: str) -> Literal["nf4"] | None:
    """In how many bits the method wants its base, told."""
    if method.quantise:
        say(f"{method.name}: {model} is loaded in 4 bits ({method.quantise})")
    return method.quantise


def apart(
    task: "Task", test: str | None, share: float, seed: int, on_bad: str, several: tuple[int, ...] | None
) -> "tuple[Task, Rows | None]":
    """The task with the rows to tune on, and rows to evaluate on that no choice ever sees."""
    from pegbox.tuning import hold_out, labelled_rows

    if test:
        return task, labelled_rows(task, test, on_bad=on_bad, say=say)
    if share == 0:
        return task, None
    same = ", the same for all seeds" if several else ""
    return hold_out(task, share, seed=seed, say=lambda line: say(f"{line}{same}; --test FILE overrides"))


def tune_and_save(
    place: "Output",
    base: "Base",
    task: "Task",
    method: "Method",
    held: "Rows | None",
    *,
    seed: int,
    several: tuple[int, ...] | None,
    title: str,
    **how: Any,
) -> "Tuned | None":
    """Fit under one seed, or under several, evaluate on the rows held out, and save.

    Args:
        place: Where it is saved, and where checkpoints go until then.
        base: The base.
        task: The task with the rows to tune on.
        method: The method.
        held: The rows held out.
        seed: Of the fit, where there are not several.
        several: Those of ``--seeds``.
        title: Of the table of scores.
        how: Further options of `pegbox.fit`.

    Returns:
        The tuned model of one seed; ``None`` of several, and in all processes but the first.
    """
    from pegbox.tuning import fit, fit_seeds

    how |= {"folder": place.run, "say": say}
    if several:
        assert held is not None
        place.save_seeds(fit_seeds(base, task, method, seeds=several, **how), held, title)
        return None
    tuned = fit(base, task, method, seed=seed, **how)
    place.save(tuned, held, title)
    return tuned if first() else None


def method_options(given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]] | None:
    """Options of methods: ``lora.rank`` from a flag, or a mapping for ``lora`` from a configuration file."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in (given or {}).items():
        name, dot, option = key.partition(".")
        if dot:
            found.setdefault(name, {})[option] = value
        elif isinstance(value, Mapping):
            found.setdefault(name, {}).update(value)
        else:
            raise UsageError(
                f"the options of {name} are no options: {value!r}",
                where=f"--options.{name}",
                expected="a name and a value",
                fix=f"write for example --options.{name}.rank 4",
            )
    return found or None
