"""The part of a model card that says how to load the folder, by Pegbox and without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.models.etude import NAMES
from pegbox.tasks import Choose, Generate, Prefer, Task

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder": "AutoModel",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


def loading(tuned: Tuned) -> list[str]:
    """Blocks of Markdown: by Pegbox, and by plain PEFT or Transformers where there is something to load."""
    parts = [_how_to_load(tuned)]
    if tuned.module is not None:
        parts.append(_plain_model(tuned) if tuned.weights else _plain_peft(tuned))
    return parts


def _how_to_load(tuned: Tuned) -> str:
    texts = _example(tuned.prompt.task)
    lines = ["import pegbox", "", 'tuned = pegbox.Tuned.load("FOLDER")', f"print(tuned.predict({texts}))"]
    told = "`FOLDER` stands for the path of this folder, here and below."
    if Path(tuned.base.name).is_absolute():
        told += " The base's path is that of the machine it was tuned on: name its hub id before sharing."
    shown = f"## How to load\n\n{told}\n\n" + _code(lines)
    return f"{shown}\n\n{_without_posterior(tuned)}" if tuned.averaged else shown


def _without_posterior(tuned: Tuned) -> str:
    """How to have the answers that are not averaged over the posterior."""
    how = '`pegbox.Tuned.load("FOLDER", posterior=False)`'
    if tuned.laplace is None:
        how = "`dataclasses.replace(tuned, averaged=False)`"
    plain = "Transformers" if tuned.weights else "PEFT"
    return (
        f"These answers are averaged over the posterior in `posterior.safetensors`; {how} gives those "
        f"without it, and so does loading by {plain} alone:"
    )


def _plain_model(tuned: Tuned) -> str:
    """The same weights by Transformers alone; a head beside them is filled in by hand."""
    auto = AUTO[tuned.base.kind]
    loading = f'{auto}.from_pretrained("FOLDER")'
    if tuned.base.kind != "encoder":
        text = f"With Transformers; {_read(tuned.prompt.task)}"
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
        text = f"With PEFT; {_read(tuned.prompt.task)}"
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


def _read(task: Task) -> str:
    if isinstance(task, Generate):
        return "write prompts by the `chat_template` in `task.json` where there is one, then `generate`."
    if isinstance(task, Choose):
        return "an option's score is the log-probability of its tokens after the template."
    return "the answer is read at the label words' first tokens."


def _code(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _example(task: Task) -> str:
    texts = '"a text"' if len(task.fields) == 1 else '"a text", "another text"'
    if isinstance(task, Generate):
        return '["a prompt"]'
    if isinstance(task, Prefer):
        return '[("a prompt", "an answer")]'
    if isinstance(task, Choose):
        return f'[({texts}, ["an option", "another"])]'
    return f"[{texts}]" if len(task.fields) == 1 else f"[({texts})]"
