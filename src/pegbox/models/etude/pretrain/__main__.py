"""Command line: one command makes one model folder, and continues where it was killed."""

import argparse
import os
import shutil
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pegbox.models.etude.pretrain._card import model_card
from pegbox.models.etude.pretrain._corpus import Corpus
from pegbox.models.etude.pretrain._loop import Plan, pretrain
from pegbox.models.etude.pretrain._models import KINDS, build_model
from pegbox.models.etude.pretrain._score import measure
from pegbox.models.etude.pretrain._tokenizer import build_tokenizer
from pegbox.models.etude.pretrain._vectors import first_vectors

STEPS = {"causal": 2000, "masked": 2000}


def main(arguments: list[str] | None = None) -> None:
    """Pretrain one model; the result is the folder ``DIR/model``."""
    parser = argparse.ArgumentParser(prog="python -m pegbox.models.etude.pretrain", description=main.__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, help=f"optimiser steps (default: {STEPS})")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in DIR")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    steps = options.steps or STEPS[options.kind]
    plan = Plan(
        kind=options.kind,
        steps=steps,
        seed=options.seed,
        threads=options.threads,
        ahead=steps if options.kind == "causal" else steps // 3,
        bf16=torch.cpu.get_capabilities().get("avx512_bf16", False),
    )
    run(plan, options.out, options.resume)


def run(plan: Plan, out: Path, resume: bool, scored_rows: int = 600) -> Path:
    """Build tokenizer, corpus and model, train, measure, and write ``out/model``; return that folder."""
    torch.set_num_threads(plan.threads)
    tokenizer = build_tokenizer(plan.kind, plan.seed)
    corpus = Corpus(tokenizer, plan.seed, plan.steps, plan.size, plan.ahead)
    print(f"{corpus.documents} documents, {corpus.tokens} tokens, {plan.steps} steps", flush=True)
    model = build_model(plan.kind, tokenizer, plan.seed, plan.hidden, plan.layers)
    spread = model.config.initializer_range
    vectors = first_vectors(corpus, tokenizer, plan.hidden, spread, plan.seed)
    cast(torch.nn.Embedding, model.get_input_embeddings()).weight.data.copy_(vectors)
    loss = pretrain(plan, model, corpus, out, resume)
    return _write(plan, model, tokenizer, corpus, out, loss, scored_rows)


def _write(
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    out: Path,
    loss: float,
    scored_rows: int,
) -> Path:
    making, final = out / "making-model", out / "model"
    for folder in (making, final):
        shutil.rmtree(folder, ignore_errors=True)
    model.bfloat16().save_pretrained(making)
    tokenizer.save_pretrained(making)
    # safetensors keeps its file to the owner; an installed package is read by everyone.
    (making / "model.safetensors").chmod(0o644)
    # The numbers on the card are those of the shipped weights, rounded to bf16, computed in fp32.
    measured = measure(plan.kind, model.float(), tokenizer, scored_rows)
    (making / "README.md").write_text(
        model_card(plan, model, corpus, loss, measured, scored_rows), encoding="utf-8"
    )
    os.replace(making, final)
    print(f"wrote {final}", flush=True)
    return final


if __name__ == "__main__":
    main()
