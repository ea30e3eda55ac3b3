from __future__ import annotations

from typing import TYPE_CHECKING

from pegbox.evaluation import Scores

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


def card(tuned: Tuned, scores: Scores | None) -> str:
    """The model card of a saved folder, in Markdown."""
    return "\n\n".join([_what(tuned), _how_good(scores), _how_to_load(tuned)]) + "\n"


def _what(tuned: Tuned) -> str:
    task, cost = tuned.prompt.task, tuned.cost
    lines = [
        f"# {tuned.method.name} on {tuned.base.name}",
        "",
        f"- Task: which of {', '.join(f'`{label}`' for label in task.labels)} fits "
        f"{' and '.join(f'`{name}`' for name in task.fields)}.",
        f"- Base: `{tuned.base.name}`"
        + (f" at revision `{tuned.base.revision}`" if tuned.base.revision else "")
        + f", fingerprint `{tuned.base.fingerprint}`.",
        f"- Method: {tuned.method.name} {tuned.method.options()}; {cost.parameters:,} tuned parameters; "
        f"{cost.rows} training rows; {cost.seconds:.1f} s.",
    ]
    if task.template is not None:
        words = ", ".join(
            f"{label}: `{word}`" for label, word in zip(task.labels, task.label_words or (), strict=True)
        )
        lines += [f"- Template: `{task.template!r}`; label words {words}."]
    if task.demonstrations:
        lines += [f"- {len(task.demonstrations)} demonstrations lie in `task.json`, with their texts."]
    return "\n".join(lines)


def _how_good(scores: Scores | None) -> str:
    if scores is None:
        return "## How good\n\nNot evaluated when it was saved: `pegbox evaluate FOLDER TEST_FILE`."
    rows = "\n".join(f"| {name} | {value} |" for name, value in scores.metrics.items())
    return (
        f"## How good\n\nOn {scores.rows} labelled rows, with 95 % intervals "
        f"(`scores.json` has all):\n\n| metric | value |\n| --- | --- |\n{rows}"
    )


def _how_to_load(tuned: Tuned) -> str:
    lines = ["## How to load", "", "```python", "import pegbox", "", 'tuned = pegbox.Tuned.load("FOLDER")']
    lines += ['tuned.predict(["a text"])', "```"]
    if tuned.module is not None and tuned.base.kind != "encoder":
        auto = "AutoModelForCausalLM" if tuned.base.kind == "causal" else "AutoModelForMaskedLM"
        lines += [
            "",
            "With plain PEFT:",
            "",
            "```python",
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f'model = PeftModel.from_pretrained({auto}.from_pretrained("{tuned.base.name}"), "FOLDER")',
            "```",
        ]
    elif tuned.module is not None:
        lines += [
            "",
            "With plain PEFT, on the encoder with pooling and a linear score layer:",
            "",
            "```python",
            "from peft import PeftModel",
            "from pegbox.models import PooledClassifier",
            "from transformers import AutoModel",
            "",
            f'encoder = AutoModel.from_pretrained("{tuned.base.name}")',
            f'model = PooledClassifier(encoder, "{tuned.base.pooling}", {len(tuned.labels)})',
            'model = PeftModel.from_pretrained(model, "FOLDER")',
            "```",
        ]
    lines += ["", "Licence and intended use: to be filled in by whoever publishes this folder."]
    return "\n".join(lines)
