from __future__ import annotations

from typing import TYPE_CHECKING

from pegbox.evaluation import GenerationScores, PolicyScores, RewardScores, Scores, TagScores
from pegbox.tasks import Choose, Classify, Decoding, Generate, Prefer, Tag, Task
from pegbox.tuning._card_loading import loading
from pegbox.tuning._card_measured import data, how_good, limits
from pegbox.tuning._card_policy import is_policy, policy

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

_PIPELINES: dict[type, str] = {
    Classify: "text-classification",
    Choose: "multiple-choice",
    Tag: "token-classification",
    Generate: "text-generation",
    Prefer: "reward-model",
}
_AVERAGED = "- Probabilities: averaged over"
_TO_FILL_IN = """\
## To be filled in by whoever publishes this folder

- `license` (also in the lines at the top), no freer than base and data allow:
- licence of the base:
- licence of the training data:
- intended use, and uses to keep from:
- contact:"""


def card(
    tuned: Tuned, scores: Scores | TagScores | GenerationScores | RewardScores | PolicyScores | None
) -> str:
    """The model card of a saved folder, in Markdown; of facts alone."""
    parts = [
        _front(tuned),
        _what(tuned),
        *policy(tuned),
        data(tuned),
        how_good(scores),
        limits(tuned, scores),
    ]
    return "\n\n".join([*parts, *loading(tuned), _TO_FILL_IN]) + "\n"


def _front(tuned: Tuned) -> str:
    """What a model hub reads; a base that lies in a folder has no name there."""
    library = "transformers" if tuned.weights else "peft"
    lines = ["---", f"library_name: {library}", f"tags: [pegbox, {_PIPELINES[type(tuned.prompt.task)]}]"]
    if tuned.base.revision:
        lines += [f"base_model: {tuned.base.name}"]
    return "\n".join([*lines, "---"])


def _what(tuned: Tuned) -> str:
    task, cost = tuned.prompt.task, tuned.cost
    options = ", ".join(f"{name} {value}" for name, value in tuned.method.options().items())
    origin = tuned.origin or {}  # where the base is the folder itself, it says what it was made from
    name, revision = origin.get("name", tuned.base.name), origin.get("revision", tuned.base.revision)
    base = f"`{name}`"
    if revision:
        base += f" at revision `{revision}`"
    if tuned.base.quantise:
        base += f" in 4 bits ({tuned.base.quantise})"
    lines = [
        f"# {tuned.method.name} on {name}",
        "",
        f"- Task: {_asked(task)}.",
        f"- Base: {base}, fingerprint `{origin.get('fingerprint', tuned.base.fingerprint)}`.",
        f"- Method: {tuned.method.name}{f' ({options})' if options else ''}; {cost.parameters:,} tuned "
        f"parameters; {cost.rows:,} {_rows(tuned)}; {cost.seconds:.1f} s.",
    ]
    if task.template is not None:
        words = zip(task.labels, task.label_words or (), strict=False)
        listed = ", ".join(f"{label}: `{word}`" for label, word in words)
        lines += [f"- Template: `{task.template!r}`" + (f"; label words {listed}." if listed else ".")]
    if task.demonstrations:
        lines += [f"- {len(task.demonstrations)} demonstrations lie in `task.json`, with their texts."]
    if tuned.averaged:
        lines += [f"{_AVERAGED} {_posterior(tuned)}."]
    return "\n".join(lines)


def with_averaged(text: str, tuned: Tuned) -> str:
    """A saved folder's card that tells of a posterior which was added since; as it was where it is no card.

    Args:
        text: The card, whatever its publisher has filled in.
        tuned: The model with its posterior.
    """
    head, mark, rest = text.partition("\n\n## ")
    facts = head.splitlines()
    if not mark or not any(line.startswith("- Method: ") for line in facts):
        return text
    kept = [line for line in facts if not line.startswith(_AVERAGED)]
    since = (
        f"{_AVERAGED} {_posterior(tuned)}; loading by PEFT alone is without it, and so are scores below that "
        "were measured before."
    )
    return "\n".join([*kept, since]) + mark + rest


def _rows(tuned: Tuned) -> str:
    """What was counted as rows."""
    kinds = {"alignment": "prompts", "dpo": "pairs of answers"}
    return next((kinds[name] for name in is_policy(tuned)), "training rows")


def _posterior(tuned: Tuned) -> str:
    """What is averaged over, in words."""
    found = tuned.laplace
    if found is None:
        return "the exact posterior of the closed form, whose prior is its penalty"
    part = "all that was tuned" if found.part == "all" else f"the part `{found.part}`"
    chosen = f"{found.precision:.3g}, {'given' if found.chosen == 'given' else f'chosen by {found.chosen}'}"
    curvature = f"{found.grade} curvature of {found.rows:,} rows"
    return f"a Laplace posterior of {part} ({curvature}; prior precision {chosen})"


def _asked(task: Task) -> str:
    fields = " and ".join(f"`{name}`" for name in task.fields)
    if isinstance(task, Tag):
        return f"which words of {fields} are entities of the types {', '.join(f'`{t}`' for t in task.types)}"
    if isinstance(task, Choose):
        return f"which of its own options answers {fields}; log-probability divided by {task.normalise}"
    if isinstance(task, Generate):
        return _told(task)
    if isinstance(task, Prefer):
        return _rewarded(task, fields)
    return f"which of {', '.join(f'`{label}`' for label in task.labels)} fits {fields}"


def _rewarded(task: Prefer, fields: str) -> str:
    """What a reward is of, and how it is read."""
    how = "the chat template in `task.json`" if task.chat_template else "prompt and answer as they stand"
    return (
        f"how good an answer to a prompt is, a reward learnt from {fields}; the probability that one answer "
        f"is better than another is the logistic function of their rewards' difference; written by {how}"
    )


def _told(task: Generate) -> str:
    """What is asked for in a generation task, and how conversations become text."""
    if task.plain:
        return "texts like those it was tuned on, continued"
    what = f"an answer to {' and '.join(f'`{name}`' for name in task.fields)}"
    if task.among:
        what = f"which of {', '.join(f'`{answer}`' for answer in task.among)} answers it"
    how = "the chat template in `task.json`" if task.chat_template else "prompt and answer as they stand"
    ways = {
        name: value for name, value in task.decoding.to_json().items() if value != getattr(Decoding, name)
    }
    decoded = ", ".join(f"{name} {value}" for name, value in ways.items()) or "greedily"
    return f"{what}; written by {how}; decoded {decoded}"
