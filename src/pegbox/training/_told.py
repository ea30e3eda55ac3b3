"""What runs tell: how far they are, and how to go on with one in the words of whoever started it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

STEP = "training: step "
_RESUME: ContextVar[str | None] = ContextVar("_RESUME", default="--resume (resume=True)")


def hush(_: str) -> None:
    """Say nothing: what there is to tell is told by another, or elsewhere."""


def is_progress(line: str) -> bool:
    """Whether a line tells no more than how far a run is."""
    return line.startswith(STEP)


def resume_hint() -> str | None:
    """What asks for a run to be resumed; empty where the caller says it, none where no checkpoint stays."""
    return _RESUME.get()


def interruption(step: int, total: int, kept: int | None, folder: object) -> str:
    """How far an interrupted run came, and how to go on with it.

    Args:
        step: Steps taken.
        total: Steps that were to be taken.
        kept: The newest checkpoint's step; none where there is no checkpoint.
        folder: Where checkpoints are.
    """
    line, hint = f"interrupted after step {step} of {total}", resume_hint()
    if hint is None:
        return line
    by = f" with {hint}" if hint else ""
    rest = "no checkpoint yet" if kept is None else f"continue from step {kept}{by}"
    return f"{line}: {rest}, checkpoints are in {folder}"


@contextmanager
def resumed_by(hint: str | None) -> Iterator[None]:
    """Name what asks for a run to be resumed, while the block runs.

    Args:
        hint: Such as ``--resume``; empty where the caller says itself how to go on; none where it removes the
            checkpoints.
    """
    token = _RESUME.set(hint)
    try:
        yield
    finally:
        _RESUME.reset(token)
