"""Train a model's trainable parameters on rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.training._history import History
from pegbox.training._settings import Settings
from pegbox.training._trainable import Trainable

if TYPE_CHECKING:
    from torch import nn

    from pegbox.training._replay import Replay


def tell(line: str) -> None:
    """Print ``line`` to standard error at once."""
    print(line, file=sys.stderr, flush=True)


def train(
    model: nn.Module,
    rows: Trainable,
    *,
    settings: Settings,
    folder: str | Path,
    valid: Trainable | None = None,
    head: nn.Module | None = None,
    replay: Replay | None = None,
    resume: bool = False,
    say: Callable[[str], None] = tell,
) -> History:
    """Train the parameters of ``model`` that require a gradient.

    Afterwards the model is in eval mode and holds the parameters with the lowest validation loss (without
    ``valid``: the last). Its ``requires_grad`` flags, its configuration and the global random generators are
    as before. A run that was killed continues with ``resume=True`` and ends with the same bits on the same
    machine.

    Args:
        model: Any module, a PEFT model usually.
        rows: What to train on.
        settings: How to train.
        folder: Belongs to this run; holds its checkpoints and nothing else is written.
        valid: Rows for early stopping and for the choice of the best parameters.
        head: The part of ``model`` that is new and learns at ``settings.head_learning_rate``.
        replay: Other rows that are replayed beside ``rows``, so that the model keeps what they hold.
        resume: Continue from the newest intact checkpoint in ``folder``; without one, start afresh.
        say: Receives messages and, where there is no terminal, progress lines.

    Returns:
        The course of the run.

    Raises:
        UsageError: Nothing to train or to train on; a resume with other settings or rows; ``folder`` holds
            an unfinished run although ``resume`` is false.
        RunError: The loss is not finite or explodes, and the model holds the last good parameters, if there
            was a checkpoint; or memory ran out with a single row. The checkpoints stay.
        KeyboardInterrupt: Passed on after saying how to continue.
    """
    from pegbox.training._run import run

    return run(model, rows, settings, Path(folder), valid, head, replay, resume, say)


def recover(model: nn.Module, folder: str | Path) -> int:
    """Load the best parameters that a run kept so far, whether it finished, diverged or was killed.

    Args:
        model: The model as it was given to `train`, with the same trainable parameters.
        folder: The run's folder.

    Returns:
        The step that the parameters are from: of the lowest validation loss, else the newest.

    Raises:
        UsageError: There is no intact checkpoint, or it is of other parameters.
    """
    from pegbox.training._recover import recovered

    return recovered(model, Path(folder))


def check_no_unfinished(folder: str | Path) -> None:
    """Tell before any work whether :func:`train` may start afresh in a folder.

    Raises:
        UsageError: When the folder holds an interrupted run, which a new one would replace.
    """
    from pegbox.training import _run

    _run.check_no_unfinished(Path(folder))
