"""The training loop: fixed batches per step, bf16 autocast, exact resume."""

import json
import math
import os
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM, PreTrainedModel

from pegbox.errors import RunError, UsageError
from pegbox.models.etude.pretrain._corpus import Batch, Corpus


@dataclass(frozen=True)
class Plan:
    """What makes a run: with the same plan on the same machine, every bit is the same.

    Attributes:
        kind: ``causal`` or ``masked``.
        steps: Optimiser steps.
        seed: Seed of world, masks and weights.
        threads: CPU threads of torch; the order of sums depends on it.
        rate: Highest learning rate.
        warmup: Steps of linear warm-up, before the cosine down to a tenth of ``rate``.
        ahead: First steps that ask for the next token instead of masked ones; all steps of a causal model.
        size: Most tokens per step, padding included.
        hidden: Width of the model.
        layers: Depth of the model.
        bf16: Whether matrix products run in bf16.
        save_every: Steps between checkpoints.
    """

    kind: str
    steps: int
    seed: int
    threads: int
    rate: float = 1.5e-3
    warmup: int = 150
    ahead: int = 0
    size: int = 2048
    hidden: int = 256
    layers: int = 4
    bf16: bool = True
    save_every: int = 200


def pretrain(plan: Plan, model: PreTrainedModel, corpus: Corpus, out: Path, resume: bool) -> float:
    """Train ``model`` in place; return the mean loss of the last hundred steps in nats.

    Args:
        plan: The run.
        model: Freshly built from the plan's seed.
        corpus: Batches of the plan's steps.
        out: Folder for checkpoints.
        resume: Continue from the newest checkpoint in ``out`` where there is one.

    Raises:
        UsageError: On a resume with another plan.
        RunError: When the loss is no longer a number.
    """
    torch.set_num_threads(plan.threads)
    optimizer = _optimizer(model, plan.rate)
    start, losses = _load(plan, model, optimizer, out) if resume else (0, [])
    model.train()
    began = time.perf_counter()
    for step in range(start, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(plan, step)
        with _autocast(plan.bf16):
            loss = _loss(model, corpus.batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise RunError(
                "the loss is not a number", where=f"step {step + 1}", fix="lower the learning rate"
            )
        if (step + 1) % 50 == 0 or step + 1 == plan.steps:
            _report(plan, step + 1, step + 1 - start, losses, began)
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            _save(plan, model, optimizer, out, step + 1, losses)
    return sum(losses[-100:]) / max(1, len(losses[-100:]))


def _loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    labels, weights = batch.pop("labels"), batch.pop("weights")
    asked = weights > 0
    hidden = model.base_model(**batch).last_hidden_state[asked]
    logits = (
        model.cls(hidden) if isinstance(model, BertForMaskedLM) else model.get_output_embeddings()(hidden)
    )
    losses = cross_entropy(logits.float(), labels[asked], reduction="none")
    return (losses * weights[asked]).sum() / weights.sum()


def _optimizer(model: PreTrainedModel, rate: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def _rate(plan: Plan, step: int) -> float:
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * done)))


def _autocast(bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


def _report(plan: Plan, step: int, here: int, losses: list[float], began: float) -> None:
    seconds = time.perf_counter() - began
    left = seconds / here * (plan.steps - step)
    mean = sum(losses[-50:]) / len(losses[-50:])
    print(
        f"step {step}/{plan.steps}  loss {mean:.3f}  {seconds / 60:.1f} min, {left / 60:.1f} min left",
        flush=True,
    )


def _save(
    plan: Plan,
    model: PreTrainedModel,
    optimizer: torch.optim.AdamW,
    out: Path,
    step: int,
    losses: list[float],
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        state = optimizer.state[weight]
        tensors |= {
            name: weight.detach(),
            f"{name}/mean": state["exp_avg"],
            f"{name}/square": state["exp_avg_sq"],
        }
    making, final = out / f"making-{step}", out / f"checkpoint-{step}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, making / "state.safetensors")
    (making / "state.json").write_text(
        json.dumps({"step": step, "plan": asdict(plan), "losses": losses[-100:]})
    )
    os.replace(making, final)
    for old in _checkpoints(out)[:-1]:
        shutil.rmtree(old)


def _checkpoints(out: Path) -> list[Path]:
    return sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def _load(
    plan: Plan, model: PreTrainedModel, optimizer: torch.optim.AdamW, out: Path
) -> tuple[int, list[float]]:
    if not (found := _checkpoints(out)):
        return 0, []
    state = json.loads((found[-1] / "state.json").read_text())
    saved = {**state["plan"], "save_every": plan.save_every}
    if changed := [key for key, value in asdict(plan).items() if saved.get(key) != value]:
        raise UsageError(
            f"the checkpoint was made with other settings: {', '.join(changed)}",
            where=str(found[-1]),
            expected=", ".join(f"{key}={saved.get(key)}" for key in changed),
            fix="resume with the settings of the first run, or choose another --out",
        )
    tensors = load_file(found[-1] / "state.safetensors")
    step = int(state["step"])
    for name, weight in model.named_parameters():
        weight.data.copy_(tensors[name])
        optimizer.state[weight] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"{name}/mean"],
            "exp_avg_sq": tensors[f"{name}/square"],
        }
    return step, list(state["losses"])
