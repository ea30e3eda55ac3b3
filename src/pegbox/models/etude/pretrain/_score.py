"""What a pretrained model knows: held-out loss per genre and zero-shot accuracy per genre and domain."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from pegbox.models.etude import world
from pegbox.models.etude.pretrain._corpus import MASK_RATE

DEMO = "hotels"
"""The held-back domain of the demo."""


@dataclass(frozen=True)
class Measured:
    """Measured on text that no training document shares a seed with.

    Attributes:
        losses: Nats per token (causal) or per masked token (masked), by genre: ordinary, held-back domains.
        zero_shot: Accuracy, best possible accuracy and chance, by ``genre / domains``.
    """

    losses: dict[str, tuple[float, float]]
    zero_shot: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Question:
    """A prompt that stops before its answer, the answers, the gold one, and the best possible accuracy."""

    prompt: str
    after: str
    answers: tuple[str, ...]
    gold: int
    ceiling: float


def measure(
    kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: int = 600, seed: int = 7
) -> Measured:
    """Measure losses and zero-shot accuracies with ``rows`` texts per genre and side."""
    model.eval()
    losses: dict[str, tuple[float, float]] = {}
    zero_shot: dict[str, tuple[float, float, float]] = {}
    for genre in world.GENRES:
        both = []
        for held in (False, True):
            domains = _domains(genre, held)
            each = max(1, rows // len(domains))
            texts = [document.text for name in domains for document in world.written(genre, name, each, seed)]
            both.append(mean_loss(kind, model, tokenizer, texts))
        losses[genre] = (both[0], both[1])
    for genre in _ASK:
        for label, domains in _sides(genre):
            each = max(1, rows // len(domains))
            questions = [question for name in domains for question in ask(genre, name, each, seed)]
            zero_shot[f"{genre} / {label}"] = accuracy(kind, model, tokenizer, questions)
    return Measured(losses, zero_shot)


def _domains(genre: str, held: bool) -> list[str]:
    return [name for name in world.DOMAINS[genre] if (name in world.HELD_BACK[genre]) == held]


def _sides(genre: str) -> list[tuple[str, list[str]]]:
    held = [(f"{name} (held back)", [name]) for name in world.HELD_BACK[genre]]
    return [("pretraining domains", _domains(genre, False)), *held]


def ask(genre: str, domain: str, rows: int, seed: int) -> list[Question]:
    """Return one label question per row of a genre."""
    return _ASK[genre](domain, rows, seed)


def _ask_reviews(domain: str, rows: int, seed: int) -> list[Question]:
    answers = (" terrible", " great")
    return [
        Question(
            f"{row.text} It was", ".", answers, world.LABELS.index(row.label), max(row.probabilities.values())
        )
        for row in world.reviews(domain, rows, seed)
    ]


def _ask_news(domain: str, rows: int, seed: int) -> list[Question]:
    answers = tuple(f" {topic}" for topic in world.TOPICS)
    return [
        Question(
            f"{row.text} Topic:", "", answers, world.TOPICS.index(row.label), max(row.probabilities.values())
        )
        for row in world.news(domain, rows, seed)
    ]


def _ask_passages(domain: str, rows: int, seed: int) -> list[Question]:
    return [
        Question(
            f"{row.text} Question: {row.closed} Answer:", "", (" no", " yes"), int(row.label == "yes"),
            max(row.probabilities.values()),
        )
        for row in world.passages(domain, rows, seed)
    ]  # fmt: skip


def _ask_pairs(domain: str, rows: int, seed: int) -> list[Question]:
    answers = tuple(f" {answer}" for answer in world.ANSWERS)
    return [
        Question(
            f"{row.premise} Question: {row.hypothesis}? Answer:", "", answers, world.ANSWERS.index(row.label),
            max(row.probabilities.values()),
        )
        for row in world.pairs(domain, rows, seed)
    ]  # fmt: skip


def _ask_replies(domain: str, rows: int, seed: int) -> list[Question]:
    return [
        Question(
            f"Message: {row.message}\nReply: {row.reply}\nTone:", "", (" rude", " polite"),
            int(row.label == "polite"), max(row.probabilities.values()),
        )
        for row in world.replies(domain, rows, seed)
    ]  # fmt: skip


_ASK = {
    "reviews": _ask_reviews,
    "news": _ask_news,
    "passages": _ask_passages,
    "pairs": _ask_pairs,
    "replies": _ask_replies,
}


@torch.no_grad()
def answer_logits(
    kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: list[Question]
) -> torch.Tensor:
    """Return the logits of the answers, (questions, answers); all questions share their answers."""
    choices = [tokenizer(word, add_special_tokens=False).input_ids for word in questions[0].answers]
    if any(len(choice) != 1 for choice in choices):
        raise ValueError(f"answers must be single tokens: {questions[0].answers}")
    columns = torch.tensor([choice[0] for choice in choices])
    found = []
    for at in range(0, len(questions), 50):
        part = questions[at : at + 50]
        if kind == "causal":
            batch = tokenizer(
                [q.prompt for q in part], return_tensors="pt", padding=True, padding_side="left"
            )
            # Only the last position is an answer's: the rest of the vocabulary-wide logits is never built.
            found.append(model(**batch, logits_to_keep=1).logits[:, -1, columns].float())
            continue
        batch = tokenizer([f"{q.prompt} [MASK]{q.after}" for q in part], return_tensors="pt", padding=True)
        bert = cast(BertForMaskedLM, model)
        hidden = bert.bert(**batch).last_hidden_state[batch.input_ids == tokenizer.mask_token_id]
        found.append(bert.cls(hidden)[:, columns].float())
    return torch.cat(found)


def accuracy(
    kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: list[Question]
) -> tuple[float, float, float]:
    """Return accuracy, the accuracy of the exact probabilities, and the share of the commonest answer."""
    gold = torch.tensor([question.gold for question in questions])
    right = answer_logits(kind, model, tokenizer, questions).argmax(-1) == gold
    ceiling = sum(question.ceiling for question in questions) / len(questions)
    return float(right.float().mean()), ceiling, float(torch.bincount(gold).max() / len(gold))


@torch.no_grad()
def mean_loss(
    kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> float:
    """Return nats per token; a masked model is asked 20 % of the tokens, all replaced by [MASK]."""
    total, count = 0.0, 0
    rng = np.random.default_rng(11)
    for at in range(0, len(texts), 25):
        part = texts[at : at + 25]
        batch = tokenizer(part, return_tensors="pt", padding=True, truncation=True, padding_side="right")
        ids, real = batch["input_ids"], batch["attention_mask"].bool()
        if kind == "causal":
            logits, targets, kept = model(**batch).logits[:, :-1], ids[:, 1:], real[:, 1:]
        else:
            special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
            kept = torch.from_numpy(rng.random(tuple(ids.shape)) < MASK_RATE) & real & ~special
            batch["input_ids"] = ids.masked_fill(kept, tokenizer.mask_token_id)
            logits, targets = model(**batch).logits, ids
        total += float(cross_entropy(logits[kept].float(), targets[kept], reduction="sum"))
        count += int(kept.sum())
    return total / max(1, count) if count else math.nan
