"""The model card, written from measured numbers."""

from datetime import UTC, datetime
from itertools import islice

import torch
from transformers import PreTrainedModel

from pegbox.models.etude import world
from pegbox.models.etude.pretrain._corpus import VERDICT_WEIGHT, Corpus
from pegbox.models.etude.pretrain._loop import Plan
from pegbox.models.etude.pretrain._score import Measured
from pegbox.models.etude.pretrain._variety import variety

_HEAD = """---
license: apache-2.0
language: en
pipeline_tag: {tag}
---

# {name}

{what} of {parameters:.1f} million parameters ({layers} layers, width {hidden}, vocabulary {vocabulary},
context 512, tied embeddings, bf16), pretrained from scratch by Pegbox's own script on text from Pegbox's own
seeded world generator. It exists so that every part of Pegbox can be tried and tested in minutes on a machine
with no network and no GPU.

## Data

{documents:,} generated documents, {tokens:,} tokens, seen once; world seed {seed}. No text by people, no web
text. Genres: product and service reviews, news briefs, passages with questions, sentence pairs, sentences
full of names, records with descriptions, instructions with answers, replies to messages.

Held back from pretraining: {held}.

Variety in the first {sample:,} training documents: {distinct:.1%} distinct documents, {sentences:.1%}
distinct sentences, {types:,} word types.

## Recipe

    python -m pegbox.models.etude.pretrain --kind {kind} --steps {steps} \\
        --seed {seed} --threads {threads} --out DIR

AdamW (0.9, 0.98), weight decay 0.05 on matrices, learning rate {rate} with {warmup} steps of warm-up and a
cosine down to a tenth, gradient norm at most 1, up to {size} tokens per step, matrix products in {precision}.
{objective}
Training loss over the last hundred steps: {loss:.3f} nats.
"""

_LOSSES = """
## Held-out loss

Nats per {unit}, {rows} documents per genre and column.

| genre | pretraining domains | held-back domains |
| --- | ---: | ---: |
"""

_ZERO = """
## Zero-shot accuracy

{rows} rows per line. "Expected best" is the accuracy that the world's exact probabilities lead one to expect,
which a sample can exceed by chance; "commonest" is the share of the commonest answer in the sample. Prompts:
reviews `{{text}} It was great.` or `terrible.`; news `{{text}} Topic: sport`; passages
`{{text}} Question: {{question}} Answer: yes`; pairs `{{premise}} Question: {{hypothesis}}? Answer: maybe`;
replies `Message: ... Reply: ... Tone: polite`, on three lines.

| genre / domains | accuracy | expected best | commonest |
| --- | ---: | ---: | ---: |
"""

_LIMITS = """
## Limits

It knows only its small world: about four thousand word pieces, a few dozen domains, short texts. On text from
outside it is a weak model; use it for trying, testing and teaching only. It states no facts about the real
world, and the names in its text are invented. Its scores on the pretraining domains flatter it, because the
words of those domains were all seen. How far the held-back reviews can be read without tuning was set by
choice: a share of their opinions uses words that all domains share, the others use words never seen before.

Measured on {date} with torch {torch}.
"""

_NAMES = {"causal": "etude", "masked": "etude-masked"}
_WHAT = {
    "causal": "A causal language model (Llama architecture)",
    "masked": "A masked language model (BERT architecture)",
}
_TAGS = {"causal": "text-generation", "masked": "fill-mask"}
_ROWS = """One document per row, `{row}`, batched with others of like length; one row in ten joins several by
line breaks. """
_VERDICTS = """In the loss, verdict words at the end of a line (great, terrible, positive, yes, no, maybe,
topics, tones) weigh {weight:.0f} times as much as other tokens."""
_VECTORS = """ Word vectors start near the verdict words whose training
documents they keep company with (counted as in naive Bayes), instead of at random."""
_OBJECTIVE = {
    "causal": _ROWS.replace("{row}", "<|bos|> text <|eos|>") + _VERDICTS + _VECTORS,
    "masked": _ROWS.replace("{row}", "[CLS] text [SEP]")
    + """20 % of the tokens are masked (80 % [MASK], 10 % random, 10 % kept), and half of
the verdict words, always by [MASK]. The first {ahead} steps ask instead for the next token at every position,
each seeing only those before it. """
    + _VERDICTS
    + _VECTORS,
}


def model_card(
    plan: Plan,
    model: PreTrainedModel,
    corpus: Corpus,
    loss: float,
    measured: Measured,
    rows: int,
) -> str:
    """Return the README of a pretrained model.

    Args:
        plan: How it was trained.
        model: The model, for its sizes.
        corpus: What it was trained on.
        loss: Training loss over the last hundred steps, in nats.
        measured: Held-out losses and zero-shot accuracies.
        rows: Rows behind each measured number.
    """
    unit = "token" if plan.kind == "causal" else "masked token"
    parts = [_head(plan, model, corpus, loss), _LOSSES.format(unit=unit, rows=rows)]
    parts += [f"| {genre} | {seen:.3f} | {held:.3f} |\n" for genre, (seen, held) in measured.losses.items()]
    parts.append(_ZERO.format(rows=rows))
    parts += [
        f"| {name} | {accuracy:.3f} | {best:.3f} | {common:.3f} |\n"
        for name, (accuracy, best, common) in measured.zero_shot.items()
    ]
    today = datetime.now(UTC).date().isoformat()
    return "".join([*parts, _LIMITS.format(date=today, torch=torch.__version__.partition("+")[0])])


def _head(plan: Plan, model: PreTrainedModel, corpus: Corpus, loss: float) -> str:
    sample = 10_000
    varied = variety(document.text for document in islice(world.documents(plan.seed, "train"), sample))
    held = "; ".join(f"{genre}: {', '.join(names)}" for genre, names in world.HELD_BACK.items())
    return _HEAD.format(
        name=_NAMES[plan.kind],
        what=_WHAT[plan.kind],
        tag=_TAGS[plan.kind],
        objective=_OBJECTIVE[plan.kind].format(weight=VERDICT_WEIGHT, ahead=plan.ahead),
        parameters=sum(weight.numel() for weight in model.parameters()) / 1e6,
        vocabulary=model.config.vocab_size,
        documents=corpus.documents,
        tokens=corpus.tokens,
        held=held,
        sample=sample,
        distinct=varied.documents,
        sentences=varied.sentences,
        types=varied.types,
        size=plan.size,
        precision="bf16 (autocast)" if plan.bf16 else "fp32",
        loss=loss,
        **{
            key: getattr(plan, key)
            for key in ("kind", "steps", "seed", "threads", "rate", "warmup", "hidden", "layers")
        },
    )
