"""The parts of a model card that say on what data it was made, how good it is and where it ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pegbox.evaluation import Flips, GenerationScores, PolicyScores, RewardScores, Scores, TagScores
from pegbox.tasks import Choose, Generate, Prefer, Tag, Task

if TYPE_CHECKING:
    from pegbox.tuning._provenance import Provenance
    from pegbox.tuning._tuned import Tuned

_MOST_COUNTS = 20


def data(tuned: Tuned) -> str:
    """Which rows were learnt from."""
    found = tuned.provenance
    if found is None:
        return "## Data\n\nWhich rows it was tuned on is not known to this folder."
    lines = [f"- `{found.source}`: {found.rows:,} rows learnt from{_stopped(found)}."]
    counts = list(found.counts.items())
    if counts:
        listed = ", ".join(f"`{name}` {count:,}" for name, count in counts[:_MOST_COUNTS])
        more = f", and {len(counts) - _MOST_COUNTS:,} more" if len(counts) > _MOST_COUNTS else ""
        lines.append(f"- {_counted(tuned.prompt.task)}: {listed}{more}.")
    lines.append(f"- SHA-256 of their contents: `{found.digest}`.")
    lines += [f"- Reading them: {note}." for note in found.reading]
    lines += [f"- Fitting them into the context: {note}." for note in found.fitting]
    return "\n".join(["## Data", "", *lines])


AnyScores = Scores | TagScores | GenerationScores | RewardScores | PolicyScores


def how_good(scores: AnyScores | None) -> str:
    """The metrics with intervals, calibration in words, and what tuning broke."""
    if scores is None:
        return "## How good\n\nNot evaluated when it was saved: `pegbox evaluate FOLDER TEST_FILE`."
    rows = "\n".join(f"| {name} | {value} |" for name, value in scores.metrics.items())
    kind = "prompts that it was not tuned on" if isinstance(scores, PolicyScores) else "labelled rows"
    table = (
        f"## How good\n\nOn {scores.rows:,} {kind}, with 95 % intervals "
        f"(`scores.json` has all):\n\n| metric | value |\n| --- | --- |\n{rows}"
    )
    if isinstance(scores, GenerationScores):
        return "\n".join([table, *_missing(scores)])
    if isinstance(scores, PolicyScores):
        before = "`before` is the model it started from; `reward` is told in that one's standard deviations."
        return f"{table}\n\n- {before}"
    if isinstance(scores, TagScores):
        return table
    if isinstance(scores, RewardScores):
        against = [
            f"- Against {name} ({part.b:.3f}): {part}, paired on the same pairs."
            for name, part in scores.baselines.items()
        ]
        return "\n".join([table, "", f"- Calibration: {_calibration(scores)}.", *against])
    said = [f"- Calibration: {_calibration(scores)}."]
    if scores.flips is not None:
        said.append(f"- Against the untuned base: {_broken(scores.flips)}.")
    return f"{table}\n\n" + "\n".join(said)


def limits(tuned: Tuned, scores: AnyScores | None) -> str:
    """What it cannot do, and how far its scores can be trusted."""
    task, context = tuned.prompt.task, tuned.base.context
    lines = [f"- {_answers(task)}", f"- {_context(task, context, cut=tuned.too_long == 'shorten')}"]
    if isinstance(task, Prefer) and (scale := tuned.details.get("reward")):
        lines.append(
            f"- Rewards of the {scale['of']} ({scale['answers']:,} answers) have mean {scale['mean']:.3f} "
            f"and standard deviation {scale['sd']:.3f}; answers of another kind, such as those of a policy "
            "that is tuned on it, have others."
        )
    lines.append(
        "- Language and subject are those of the training rows; nothing is known of others, and its "
        "probabilities do not tell when a text is of another kind."
    )
    if scores is not None:
        lines.append(f"- {_known(scores)}")
    return "\n".join(["## Limits", "", *lines])


def _missing(scores: GenerationScores) -> list[str]:
    """The metrics that were not computed, each with its reason."""
    lines = [f"- Not computed: {name}, since {reason}." for name, reason in scores.missing.items()]
    lines += [f"- {name.replace('_', ' ')}: {count:,}." for name, count in scores.counts.items()]
    return ["", *lines] if lines else []


def _stopped(found: Provenance) -> str:
    return f", {found.validation:,} more chose where training stopped" if found.validation else ""


def _counted(task: Task) -> str:
    if isinstance(task, Tag):
        return "Entities of each type"
    return "Questions with so many options" if isinstance(task, Choose) else "Rows of each label"


def _calibration(scores: Scores | RewardScores) -> str:
    """The calibration error, and on which side the model errs, where it can be told."""
    error = scores.metrics["ece"]
    bins = scores.reliability.bins
    gap = sum(part.count * (part.confidence - part.accuracy) for part in bins) / scores.rows
    told = f"expected calibration error {error}"
    if math.isnan(error.low):
        return f"{told}; too few rows to judge by"
    if error.low <= 0:
        return f"{told}; nothing here speaks against its probabilities"
    if abs(gap) < error.value / 2:
        return f"{told}; it is over-confident in places and under-confident in others"
    side = "over-confident" if gap > 0 else "under-confident"
    return f"{told}; on the whole it is {side}, by {100 * abs(gap):.1f} points"


def _broken(flips: Flips) -> str:
    broken, mended = flips.right_to_wrong.count, flips.wrong_to_right.count
    return f"of {flips.rows:,} answers {mended:,} were mended and {broken:,} that had been right were broken"


def _answers(task: Task) -> str:
    if isinstance(task, Tag):
        types = ", ".join(f"`{name}`" for name in task.types)
        return f"It finds entities of the types {types} and no others, and none that lie within another."
    if isinstance(task, Generate):
        return _free(task)
    if isinstance(task, Prefer):
        return (
            "It gives what the preferences rewarded, length and style included, not what is right; a policy "
            "that is tuned on it finds answers that it overrates."
        )
    if isinstance(task, Choose):
        return "It always answers one of the options that it is given, also where none is right."
    return "It always answers one of its labels, also where none fits the text."


def _free(task: Generate) -> str:
    if task.among:
        return "It always answers one of the answers that it chooses among, also where none is right."
    return "It writes what is probable, not what is true: its answers can be fluent and wrong."


def _context(task: Task, context: int, *, cut: bool) -> str:
    read = f"It reads {context:,} tokens at a time"
    if isinstance(task, Tag):
        return f"{read}; longer sentences are read in several windows."
    if isinstance(task, Prefer):
        told = "cut at its beginning, which is told" if cut else "not shortened"
        return f"{read}, prompt and answer together; a longer prompt is {told}, an answer never."
    what = "question" if isinstance(task, Choose | Generate) else "text"
    read += ", those of the template and of demonstrations included" if task.template else ""
    return f"{read}; a longer {what} is {'cut at its end, which is told' if cut else 'refused'}."


def _known(scores: AnyScores) -> str:
    if isinstance(scores, PolicyScores):
        judged = f"It was scored on {scores.rows:,} prompts"
        if "gold" in scores.rewards:
            return (
                f"{judged}, also by a reward that nothing was tuned on (`gold`); people may judge otherwise."
            )
        return (
            f"{judged} by one reward, which it may have learnt to please; only another judge, or people, can "
            "tell whether its answers are better."
        )
    if isinstance(scores, GenerationScores):
        return (
            f"It was scored on {scores.rows:,} rows; the intervals above say nothing of rows from elsewhere, "
            "of other training rows or of another seed."
        )
    name = "f1" if isinstance(scores, TagScores) else "accuracy"
    called = "F1" if name == "f1" else name
    found = scores.metrics[name]
    rows = f"It was scored on {scores.rows:,} rows"
    if math.isnan(found.low):
        return f"{rows}, so that its {called} is hardly known."
    half = 100 * max(found.high - found.value, found.value - found.low)
    source = "it says nothing of rows from elsewhere, of other training rows or of another seed"
    return f"{rows}, so that its {called} is known to ± {half:.1f} points; {source}."
