from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.evaluation import Scores
from pegbox.models.etude import NAMES
from pegbox.tasks import Choose, Classify, Tag, Task

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder": "AutoModel",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}
_PIPELINES: dict[type, str] = {
    Classify: "text-classification",
    Choose: "multiple-choice",
    Tag: "token-classification",
}


def card(tuned: Tuned, scores: Scores | None) -> str:
    """The model card of a saved folder, in Markdown."""
    parts = [_front(tuned), _what(tuned), _how_good(scores), _how_to_load(tuned)]
    if tuned.module is not None:
        parts.append(_plain_model(tuned) if tuned.weights else _plain_peft(tuned))
    parts.append("## Licence and intended use\n\nTo be filled in by whoever publishes this folder.")
    return "\n\n".join(parts) + "\n"


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
        f"parameters; {cost.rows:,} training rows; {cost.seconds:.1f} s.",
    ]
    if task.template is not None:
        words = zip(task.labels, task.label_words or (), strict=False)
        listed = ", ".join(f"{label}: `{word}`" for label, word in words)
        lines += [f"- Template: `{task.template!r}`" + (f"; label words {listed}." if listed else ".")]
    if task.demonstrations:
        lines += [f"- {len(task.demonstrations)} demonstrations lie in `task.json`, with their texts."]
    return "\n".join(lines)


def _asked(task: Task) -> str:
    fields = " and ".join(f"`{name}`" for name in task.fields)
    if isinstance(task, Tag):
        return f"which words of {fields} are entities of the types {', '.join(f'`{t}`' for t in task.types)}"
    if isinstance(task, Choose):
        return f"which of its own options answers {fields}; log-probability divided by {task.normalise}"
    return f"which of {', '.join(f'`{label}`' for label in task.labels)} fits {fields}"


def _example(task: Task) -> str:
    texts = '"a text"' if len(task.fields) == 1 else '"a text", "another text"'
    if isinstance(task, Choose):
        return f'[({texts}, ["an option", "another"])]'
    return f"[{texts}]" if len(task.fields) == 1 else f"[({texts})]"


def _how_good(scores: Scores | None) -> str:
    if scores is None:
        return "## How good\n\nNot evaluated when it was saved: `pegbox evaluate FOLDER TEST_FILE`."
    rows = "\n".join(f"| {name} | {value} |" for name, value in scores.metrics.items())
    return (
        f"## How good\n\nOn {scores.rows:,} labelled rows, with 95 % intervals "
        f"(`scores.json` has all):\n\n| metric | value |\n| --- | --- |\n{rows}"
    )


def _how_to_load(tuned: Tuned) -> str:
    texts = _example(tuned.prompt.task)
    lines = ["import pegbox", "", 'tuned = pegbox.Tuned.load("FOLDER")', f"print(tuned.predict({texts}))"]
    told = "`FOLDER` stands for the path of this folder, here and below."
    if Path(tuned.base.name).is_absolute():
        told += " The base's path is that of the machine it was tuned on: name its hub id before sharing."
    return f"## How to load\n\n{told}\n\n" + _code(lines)


def _plain_model(tuned: Tuned) -> str:
    """The same weights by Transformers alone; a head beside them is filled in by hand."""
    auto = AUTO[tuned.base.kind]
    loading = f'{auto}.from_pretrained("FOLDER")'
    if tuned.base.kind != "encoder":
        text = "With Transformers; the answer is read at the label words' first tokens."
        return f"{text}\n\n" + _code([f"from transformers import {auto}", "", f"model = {loading}"])
    lines = [
        "from pegbox.models import PooledClassifier",
        "from safetensors.torch import load_file",
        f"from transformers import {auto}",
        "",
        f'classifier = PooledClassifier({loading}, "{tuned.base.pooling}", {len(tuned.labels)})',
        'classifier.score.load_state_dict(load_file("FOLDER/head.safetensors"))',
    ]
    return "With Transformers; the linear head lies beside the trunk in `head.safetensors`:\n\n" + _code(
        lines
    )


def _plain_peft(tuned: Tuned) -> str:
    """The same weights without Tuned: a language model by PEFT alone, an encoder with its head."""
    base, auto = tuned.base, AUTO[tuned.base.kind]
    inner = f'"{base.name}"'
    needed = []
    if base.name in NAMES:
        # They lie inside the package, where their name alone does not lead.
        needed, inner = ["find_model"], f"find_model({inner})"
    options = f', revision="{base.revision}"' if base.revision else ""
    if base.quantise:
        bits = 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True'
        options += f", quantization_config=BitsAndBytesConfig({bits})"
    loading = f"{auto}.from_pretrained({inner}{options})"
    if base.kind != "encoder":
        lines = [f"base = {loading}", 'model = PeftModel.from_pretrained(base, "FOLDER")']
        read = "the answer is read at the label words' first tokens."
        if isinstance(tuned.prompt.task, Choose):
            read = "an option's score is the log-probability of its tokens after the template."
        text = f"With PEFT; {read}"
        if tuned.method.capability.output_only:
            text += " What PEFT says about tied embeddings and a missing bias concerns merging only:"
    else:
        needed.append("PooledClassifier")
        lines = [
            f"encoder = {loading}",
            f'classifier = PooledClassifier(encoder, "{base.pooling}", {len(tuned.labels)})',
            'model = PeftModel.from_pretrained(classifier, "FOLDER")',
        ]
        text = "With PEFT, on the encoder with its pooling and a linear head:"
    named = f"{auto}, BitsAndBytesConfig" if base.quantise else auto
    imports = ["from peft import PeftModel", f"from transformers import {named}"]
    if needed:
        imports.append(f"from pegbox.models import {', '.join(sorted(needed))}")
    return f"{text}\n\n" + _code([*sorted(imports), "", *lines])


def _code(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
