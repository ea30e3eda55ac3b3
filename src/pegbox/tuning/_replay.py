"""General text replayed while a method trains, so that the model keeps what it could say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox import training
from pegbox.data import AUTO, GeneralText, read_general_text
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import Attached, Method
from pegbox.models import Base, LanguageRows, check_language
from pegbox.tasks import Prompt, Task
from pegbox.tuning._general import MEASURED, REPLAYED, is_embedded, world_text
from pegbox.tuning._general import SIZE as MEASURED_SIZE
from pegbox.tuning._provenance import bare_name

SIZE = 1 << 19
WINDOW = 256


@dataclass(frozen=True)
class Replay:
    """What general text a gradient method replays, and how much of it.

    Of all sequences that training reads, a share of ``ratio`` are windows of general text. The loss of a step
    is the mean over the answers of its B rows plus R/B times the mean over the tokens asked of its R windows:
    each sequence counts alike.

    Args:
        source: A .txt file, a folder of them, or a table with a text column; ``auto`` for what the embedded
            world writes in other genres than the task's (etude alone).
        ratio: Share of the windows, above 0 and below 1.
        column: Text column of a table; by default ``text``, else guessed.
        size: Bytes of text to draw at the most.

    Raises:
        UsageError: For values that cannot be.
    """

    source: str | Path = AUTO
    ratio: float = 0.1
    column: str | None = None
    size: int = SIZE

    def __post_init__(self) -> None:
        number = isinstance(self.ratio, int | float) and not isinstance(self.ratio, bool)
        if not number or not 0 < self.ratio < 1:
            raise UsageError(
                "the share to replay is no share",
                where=f"replay ratio {self.ratio!r}",
                expected="above 0 and below 1, such as 0.1",
                fix="leave the replay out for none",
            )


@dataclass(frozen=True, eq=False)
class Replayed:
    """The text of a replay, read.

    Args:
        plan: What was asked for.
        text: The text.
    """

    plan: Replay
    text: GeneralText

    @property
    def key(self) -> str:
        """Text and share, for the description of a fit."""
        return f"{self.plan.ratio:g} of {self.text.digest()}"

    def rows(self, base: Base, prompt: Prompt, seed: int) -> training.Replay:
        """As the engine replays it; soft tokens stand in front of every window."""
        soft = getattr(prompt, "soft", None)
        ids = [] if soft is None else [soft.first + place for place in range(soft.count)]
        rows = LanguageRows(base, self.text.documents, soft=ids, seed=seed, length=WINDOW)
        return training.Replay(rows, self.plan.ratio, self.text.digest())


def remembered(
    replayed: Replayed | None, rows: training.Replay | None, history: training.History, seed: int
) -> dict[str, Any]:
    """What a tuned model remembers of a replay: how much, and digests of the documents that it read."""
    if replayed is None or rows is None:
        return {}
    windows: LanguageRows = rows.rows  # type: ignore[assignment]
    indices = training.replayed_indices(len(windows), seed, range(history.replayed))
    read = {windows.windows[index % len(windows)].document for index in indices}
    digests = replayed.text.digests()
    return {
        "replay": {
            "source": bare_name(replayed.text.source),
            "ratio": replayed.plan.ratio,
            "windows": history.replayed,
            "documents": [digests[document] for document in sorted(read)],
        }
    }


def check_replay(method: Method, plan: Replay | None) -> None:
    """Raise UsageError for a replay with a method that takes no steps."""
    if plan is not None and not isinstance(method, Attached):
        raise UsageError(
            f"{method.name} takes no training steps that could replay text",
            where="replay",
            expected="a gradient method such as lora or full",
            fix="leave the replay out",
        )


def read_replay(plan: Replay, base: Base, task: Task, say: Callable[[str], None]) -> Replayed:
    """Read the text of a replay and say what it is.

    Raises:
        CapabilityError: For a head, an encoder or an encoder-decoder, with the reason.
        UsageError: For ``auto`` on another base than the embedded models.
        InputError: When nothing can be read there.
    """
    if base.whole is not None:
        raise CapabilityError(
            "a head stands in place of the output layer, which general text would be said by",
            where=f"replay on {base.name}",
            expected="an answer by label words",
            fix="leave the replay out, or the head (readout words)",
        )
    check_language(base)
    if plan.source != AUTO:
        text = read_general_text(plan.source, column=plan.column, size=plan.size)
    elif is_embedded(base):
        measured = world_text(task, size=MEASURED_SIZE, seed=MEASURED)
        text = world_text(task, size=plan.size, seed=REPLAYED, without=measured.documents)
    else:
        raise UsageError(
            f"nobody knows what {base.name} read before",
            where="replay auto",
            expected="a .txt, .csv or .jsonl file of general text, or a folder of .txt files",
            fix="name it (--replay FILE)",
        )
    for note in text.notes:
        say(f"replay: {note}")
    return Replayed(plan, text)
