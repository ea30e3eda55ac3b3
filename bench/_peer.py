"""The peer: LoRA by plain PEFT and transformers.Trainer, written as their documentation writes it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from pegbox.data import Examples
from pegbox.tasks import Prompt

IGNORED = -100
PREDICT_ROWS = 64

Array = npt.NDArray[np.float64]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """How the peer trains.

    Args:
        learning_rate: Peak learning rate; linear decay, as the Trainer's default.
        epochs: Passes over the rows.
        batch_size: Rows per step.
        bf16: Autocast to bfloat16.
        by_length: Batches of rows of similar length.
        max_steps: Upper limit of steps; -1 for none.
        rank: Rank of LoRA; alpha is twice the rank.
        seed: Seed of initial values and of the order.
    """

    learning_rate: float = 1e-3
    epochs: float = 3
    batch_size: int = 16
    bf16: bool = False
    by_length: bool = False
    max_steps: int = -1
    rank: int = 8
    seed: int = 0

    def arguments(self, folder: str) -> TrainingArguments:
        """Return the Trainer's arguments; nothing is saved, evaluated or logged on the way."""
        return TrainingArguments(
            output_dir=folder,
            learning_rate=self.learning_rate,
            num_train_epochs=self.epochs,
            max_steps=self.max_steps,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=PREDICT_ROWS,
            bf16=self.bf16,
            train_sampling_strategy="group_by_length" if self.by_length else "random",
            seed=self.seed,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )


def completions(prompt: Prompt, rows: Examples) -> Rows:
    """Tokenise prompt and answer of each row; the labels are ignored but for the answer's tokens."""
    template, tokenizer = prompt.template, prompt.tokenizer
    words = dict(zip(prompt.task.labels, prompt.task.label_words or (), strict=True))
    answers = dict(zip(prompt.task.labels, prompt.answers, strict=True))
    assert rows.labels is not None
    texts = [
        template.before(dict(zip(rows.fields, values, strict=True))) + template.gap() + words[label]
        for values, label in zip(rows.texts, rows.labels, strict=True)
    ]
    coded = tokenizer(texts, truncation=True, max_length=prompt.context)["input_ids"]
    return [completion(ids, len(answers[label])) for ids, label in zip(coded, rows.labels, strict=True)]


def completion(ids: Sequence[int], answer: int) -> dict[str, Any]:
    """Return one row of a causal model whose last ``answer`` tokens are to be learnt."""
    labels = [IGNORED] * (len(ids) - answer) + list(ids[-answer:])
    return {"input_ids": list(ids), "attention_mask": [1] * len(ids), "labels": labels}


def trainer(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Rows, settings: Settings, folder: str
) -> Trainer:
    """Return the Trainer for completion labels or, with one label per row, a classification head."""
    causal = isinstance(rows[0]["labels"], list)
    made = Trainer(
        model=model,
        args=settings.arguments(folder),
        train_dataset=rows,  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(tokenizer) if causal else DataCollatorWithPadding(tokenizer),
    )
    made.remove_callback(PrinterCallback)
    return made


def train(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Rows, settings: Settings) -> None:
    """Train the adapter on ``model``, and the head where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        trainer(model, tokenizer, rows, settings, folder).train()


def causal_lora(path: str, settings: Settings) -> torch.nn.Module:
    """Load a causal model and put LoRA on its queries and values."""
    return put_lora(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), settings)


def put_lora(model: torch.nn.Module, settings: Settings) -> torch.nn.Module:
    """Put LoRA on the queries and values of a causal model."""
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)  # type: ignore[arg-type]


def encoder_lora(path: str, labels: int, settings: Settings) -> torch.nn.Module:
    """Load an encoder with a new classification head and put LoRA on its queries and values."""
    torch.manual_seed(settings.seed)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=labels, dtype=torch.float32)
    config = LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules=["query", "value"], task_type="SEQ_CLS"
    )
    return get_peft_model(model, config)


def encoder_rows(prompt: Prompt, rows: Examples) -> Rows:
    """Tokenise texts or pairs of texts for a classification head."""
    coded = prompt.tokenizer(*map(list, rows.fields.values()), truncation=True, max_length=prompt.context)
    names = {label: index for index, label in enumerate(prompt.task.labels)}
    return [
        {**{key: coded[key][index] for key in coded}, "labels": names[label]}
        for index, label in enumerate(rows.labels or ())
    ]


@torch.inference_mode()
def causal_probabilities(model: torch.nn.Module, prompt: Prompt, rows: Examples) -> Array:
    """Return the label words' probabilities (rows, labels), read from the full logits."""
    tokens = torch.tensor(prompt.tokens)
    found = []
    for batch in _batches(completions(prompt, rows), prompt.tokenizer):
        last = (batch.pop("labels") != IGNORED).int().argmax(dim=1) - 1
        logits = model.eval()(**batch).logits
        found.append(logits[torch.arange(len(last)), last][:, tokens].double().softmax(dim=1))
    return torch.cat(found).numpy()


@torch.inference_mode()
def encoder_probabilities(model: torch.nn.Module, prompt: Prompt, rows: Examples) -> Array:
    """Return the classification head's probabilities (rows, labels)."""
    collate, found = DataCollatorWithPadding(prompt.tokenizer), []
    coded = encoder_rows(prompt, rows)
    for start in range(0, len(coded), PREDICT_ROWS):
        batch = collate(coded[start : start + PREDICT_ROWS])
        batch.pop("labels")
        found.append(model.eval()(**batch).logits.double().softmax(dim=1))
    return torch.cat(found).numpy()


def _batches(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    collate = DataCollatorForSeq2Seq(tokenizer)
    return [dict(collate(rows[start : start + PREDICT_ROWS])) for start in range(0, len(rows), PREDICT_ROWS)]
