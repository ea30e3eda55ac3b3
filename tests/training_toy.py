"""A tiny random Llama with LoRA and a toy task, for the tests of the training room."""

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import LlamaConfig, LlamaForCausalLM

# Threads cost such small products more than they save, by far on a busy machine.
torch.set_num_threads(1)


def tiny_model(dropout: float = 0.1, seed: int = 0) -> PeftModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    lora = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for a name that transformers deprecated
        model = get_peft_model(LlamaForCausalLM(config), lora)
    for name, value in model.named_parameters():
        if "lora_B" in name:  # zero as initialised, which would hide mistakes in the gradient of lora_A
            nn.init.normal_(value, std=0.05)
    return model


class Rows:
    """Which of two halves of the vocabulary the first token is from; row i has ``answers[i]`` answers."""

    def __init__(self, count: int, seed: int = 0, answers: Sequence[int] | None = None, flip: bool = False):
        draw = random.Random(seed)
        self.ids = [[draw.randrange(3, 200) for _ in range(draw.randrange(4, 20))] for _ in range(count)]
        self.labels = [int(row[0] > 100) ^ flip for row in self.ids]
        self.answers = list(answers) if answers else [1] * count
        self.lengths = [len(row) for row in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        width = max(self.lengths[index] for index in indices)
        ids = torch.zeros(len(indices), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, index in enumerate(indices):
            ids[at, : self.lengths[index]] = torch.tensor(self.ids[index])
            mask[at, : self.lengths[index]] = 1
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.tensor([self.labels[index] for index in indices]),
            "answers": torch.tensor([self.answers[index] for index in indices]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        total, count = logits.new_zeros((), dtype=torch.float32), 0
        width = batch["attention_mask"].sum(1)
        # The k-th answer is read k positions before the end; a row takes part in the first `answers` of them.
        for back in range(int(batch["answers"].max())):
            rows = torch.nonzero(batch["answers"] > back)[:, 0]
            choice = logits[rows, width[rows] - 1 - back][:, 1:3].float()
            total = total + nn.functional.cross_entropy(choice, batch["labels"][rows], reduction="sum")
            count += len(rows)
        return total, torch.tensor(count, device=logits.device)


class Grouped(Rows):
    """Rows of two classes, of which the first has ``share`` of them; their loss takes weights."""

    def __init__(self, count: int, share: float = 0.75, seed: int = 0) -> None:
        super().__init__(count, seed=seed)
        draw = random.Random(seed + 1)
        for row, label in enumerate(self.labels):
            if label == 1 and draw.random() < 2 * share - 1:
                self.ids[row][0] -= 97  # the label is whether the first token is above 100
                self.labels[row] = 0
        self.groups = list(self.labels)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "weights" not in batch:
            return super().loss(model, batch)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        last = batch["attention_mask"].sum(1) - 1
        choice = logits[torch.arange(len(last)), last][:, 1:3].float()
        losses = nn.functional.cross_entropy(choice, batch["labels"], reduction="none")
        return (losses * batch["weights"]).sum(), batch["weights"].sum()


class Regression:
    """Any module can be trained: here a linear map to the mean of its inputs."""

    def __init__(self) -> None:
        self.inputs = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
        self.lengths = [1] * 64

    def __len__(self) -> int:
        return 64

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"inputs": self.inputs[list(indices)]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        error = model(batch["inputs"])[:, 0] - batch["inputs"].mean(1)
        return error.square().sum(), torch.tensor(len(error))


@contextmanager
def gradients() -> Iterator[list[list[Tensor]]]:
    """The gradients that each optimiser step sees."""
    seen: list[list[Tensor]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.append([value.grad.clone() for group in optimizer.param_groups for value in group["params"]])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def quiet(_: str) -> None:
    """Say nothing."""


def told(lines: list[str]) -> list[str]:
    """The lines without the progress, which a slow machine tells."""
    return [line for line in lines if not line.startswith("training: step")]


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
