"""The conformance table: what every gradient method must do on every architecture that it claims.

Nothing here knows a particular method: rows come from the registry, holes from the capability rows and from
what a method's own flags say. `tests/test_conformance.py` runs it.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pegbox
from four_bit_toy import wide_folder
from pegbox.methods import Attached
from pegbox.models import Base, answer_logits, encode
from pegbox.tasks import Encoded, Prompt
from pegbox.tuning import Cost, Tuned
from pegbox.tuning._label_rows import LabelRows
from tiny import tiny_folder
from tuning_toy import hush, rows_of, task_of

FAMILIES: dict[str, tuple[str, str]] = {
    "llama": ("llama", "causal"),
    "qwen3": ("qwen3", "causal"),
    "gemma3_text": ("gemma3_text", "causal"),
    "mistral": ("mistral", "causal"),
    "gpt2": ("gpt2", "causal"),
    "bert": ("bert", "masked"),
    "roberta": ("roberta", "masked"),
    "t5": ("t5", "encoder-decoder"),
    "bert-encoder": ("bert", "encoder"),
}
# Of different lengths, so that padding is always at work.
ROWS = rows_of(6, noise=0.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A method attached to a tiny random model."""

    method: Attached
    base: Base
    prompt: Prompt
    module: nn.Module

    @property
    def encoded(self) -> Encoded:
        return encode(self.base, self.prompt, ROWS, say=hush)

    @property
    def rows(self) -> LabelRows:
        return LabelRows(self.base, self.prompt, self.encoded, self.prompt.task.gold(ROWS))

    @property
    def adapter(self) -> Any:
        """The module, as PEFT's."""
        return self.module

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def logits(self) -> Tensor:
        return answer_logits(self.module, self.base, self.prompt, self.encoded).logits

    def hidden(self) -> Tensor:
        return answer_logits(self.module, self.base, self.prompt, self.encoded).hidden

    def loss(self, *, alike: bool = False) -> Tensor:
        """Mean loss over the rows, or over those of one label."""
        rows = self.rows
        picked = [at for at, gold in enumerate(self.prompt.task.gold(ROWS)) if gold or not alike]
        batch = rows.collate(picked)
        loss, answers = rows.loss(self.module, batch)
        return loss / answers

    def tuned(self) -> Tuned:
        count = sum(value.numel() for value in self.trained.values())
        module = self.method.trained(self.base, self.module).requires_grad_(False).eval()
        cost = Cost(0.0, count, len(ROWS))
        return Tuned(
            self.base, self.prompt, self.method, module, None, {}, cost, weights=self.method.whole, say=hush
        )


def base_of(family: str, *, dtype: Any = "float32", quantise: Any = None) -> Base:
    return pegbox.load(folder_of(family, quantise), dtype=dtype, quantise=quantise)


def folder_of(family: str, quantise: Any = None) -> Path:
    """A tiny model on disk; one in 4 bits must be wider."""
    return (wide_folder if quantise else tiny_folder)(*FAMILIES[family])


def case_of(method: Attached, family: str, *, turned: bool = False, dtype: Any = "float32") -> Case:
    """Attach a method; ``turned`` moves its parameters off their start by seeded noise."""
    base = base_of(family, dtype=dtype, quantise=method.quantise)
    task = task_of(2)
    if method.capability.needs_head and base.kind != "encoder":
        base, task = base.headed(), task_of(2, readout="head")
    prompt = method.prompt(base, base.prepare(task))
    case = Case(method, base, prompt, method.attach(base, prompt, seed=3))
    if turned:
        turn(case.trained, seed=5)
    case.module.eval()
    return case


@torch.no_grad()
def turn(parameters: dict[str, nn.Parameter], *, seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        noise = torch.randn(value.shape, generator=dice) * 0.2
        value.add_(noise.to(value.dtype))


def base_answers(case: Case) -> tuple[Tensor, Tensor]:
    """Hidden states and logits of the base alone, by the prompt without what the method puts into it."""
    prompt = case.base.prepare(task_of(2))
    encoded = encode(case.base, prompt, ROWS, say=hush)
    found = answer_logits(case.base.module(2), case.base, prompt, encoded)
    return found.hidden, found.logits


def memorise(
    case: Case, *, steps: int = 250, rate: float = 2e-2, share: float = 0.7, alike: bool = False
) -> tuple[float, float]:
    """The loss on one batch before AdamW and after at most so many steps, fewer once it fell to a share."""
    optimiser = torch.optim.AdamW(list(case.trained.values()), lr=rate, weight_decay=0.0)
    first = last = case.loss(alike=alike).item()
    for _ in range(steps):
        optimiser.zero_grad()
        case.loss(alike=alike).backward()
        optimiser.step()
        last = case.loss(alike=alike).item()
        if last < share * first:
            break
    return first, last


def second_adapter(case: Case) -> None:
    """Add another adapter of the same kind, turned elsewhere, and make it the active one."""
    config = copy.deepcopy(case.adapter.peft_config["default"])
    case.adapter.add_adapter("second", config)
    case.adapter.set_adapter("second")
    turn(case.trained, seed=11)
    case.module.eval()


def generated(case: Case, ids: list[list[int]], *, use_cache: bool) -> list[list[int]]:
    """Eight greedy tokens after each of some prompts, padded on the left."""
    length = max(map(len, ids))
    pad = case.base.pad
    batch = torch.tensor([[pad] * (length - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in ids])
    made = case.adapter.generate(
        input_ids=batch,
        attention_mask=mask,
        do_sample=False,
        num_beams=1,
        min_new_tokens=8,
        max_new_tokens=8,
        use_cache=use_cache,
        pad_token_id=pad,
    )
    return made[:, -8:].tolist()


def write_list(folder: Path, entries: list[dict[str, str]]) -> Path:
    path = folder / "cases.json"
    path.write_text(json.dumps(entries), "utf-8")
    return path
