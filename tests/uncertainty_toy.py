"""Rows and a small PEFT model in float64, and the curvature spelt out number by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pegbox.uncertainty import Place, places
from pegbox.uncertainty import _jacobian as jacobian_module
from pegbox.uncertainty._roots import contrasts


class Net(nn.Module):
    """Tokens (batch, tokens, width) through two layers and a mean over real tokens to (batch, labels)."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.score = nn.Linear(width, labels)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(tokens))))
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.score(mean)


class Rows:
    """Random token vectors of different lengths with labels."""

    own_texts = False

    def __init__(self, count: int, labels: int, *, width: int = 5, tokens: int = 4, seed: int = 0) -> None:
        self.answers = labels
        generator = torch.Generator().manual_seed(seed)
        self.lengths = [1 + index % tokens for index in range(count)]
        self._texts = [
            torch.randn(length, width, generator=generator, dtype=torch.float64) for length in self.lengths
        ]
        self.gold = torch.randint(0, labels, (count,), generator=generator)
        self.padding = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        longest = max(self.lengths[index] for index in indices) + self.padding
        tokens = torch.zeros(len(indices), longest, self._texts[0].shape[1], dtype=torch.float64)
        mask = torch.zeros(len(indices), longest, dtype=torch.float64)
        for line, index in enumerate(indices):
            tokens[line, : self.lengths[index]] = self._texts[index]
            mask[line, : self.lengths[index]] = 1.0
        return {"tokens": tokens, "mask": mask, "gold": self.gold[list(indices)]}

    def scores(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["tokens"], batch["mask"])


class Options(Rows):
    """Each row has two or three answers, each read from a text of its own."""

    own_texts = True

    def __init__(self, count: int, *, width: int = 5, seed: int = 0) -> None:
        super().__init__(3 * count, 2, width=width, seed=seed)
        self.answers = 3
        self._all = Rows.collate(self, range(3 * count))
        self.lengths = self.lengths[:count]
        self.gold = self.gold[:count]
        self.there = torch.tensor([[True, True, row % 2 == 0] for row in range(count)])

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        own = {name: self._all[name].view(-1, 3, *self._all[name].shape[1:]) for name in ("tokens", "mask")}
        chosen = list(indices)
        return {
            "tokens": own["tokens"][chosen],
            "mask": own["mask"][chosen],
            "there": self.there[chosen],
            "gold": self.gold[chosen],
        }

    def scores(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        there = batch["there"]
        found = model(batch["tokens"][there], batch["mask"][there]).squeeze(-1)
        return found.new_full(there.shape, -torch.inf).masked_scatter(there, found)


def adapted(
    labels: int, *, width: int = 5, rank: int = 2, targets: Any = ("first", "second"), seed: int = 0
) -> Any:
    """A PEFT LoRA model in float64 with a trained-looking adapter and head."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    net = Net(width, labels).double()
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), modules_to_save=["score"])
    model = get_peft_model(net, config).double()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(0.3 * torch.randn(value.shape, dtype=torch.float64))
    return model.eval().requires_grad_(False)


def jacobian(model: Any, rows: Any, spots: Sequence[Place], index: int) -> Tensor:
    """Of one row's scores by all uncertain numbers, by autograd one at a time, (answers, numbers)."""
    values = [value for spot in spots for value in spot.layer.parameters()]
    for value in values:
        value.requires_grad_(True)
    scores = rows.scores(model, rows.collate([index]))[0]
    lines = []
    for score in scores[torch.isfinite(scores)]:
        parts = []
        for spot in spots:
            own = list(spot.layer.parameters())
            found = torch.autograd.grad(score, own, retain_graph=True, allow_unused=True)
            slopes = [torch.zeros_like(v) if g is None else g for v, g in zip(own, found, strict=True)]
            whole = slopes[0] if len(slopes) == 1 else torch.cat([slopes[0], slopes[1][:, None]], 1)
            parts.append(whole.flatten())
        lines.append(torch.cat(parts))
    for value in values:
        value.requires_grad_(False)
    return torch.stack(lines)


def curvature(model: Any, rows: Any, spots: Sequence[Place]) -> Tensor:
    """The generalised Gauss-Newton matrix, summed over rows (numbers, numbers)."""
    total = 0.0
    for index in range(len(rows)):
        slopes = jacobian(model, rows, spots, index)
        scores = rows.scores(model, rows.collate([index]))[0]
        p = scores[torch.isfinite(scores)].softmax(0)
        total = total + slopes.T @ (torch.diag(p) - torch.outer(p, p)) @ slopes
    return total


__all__ = ["Net", "Options", "Rows", "adapted", "curvature", "jacobian", "places"]


def slopes_both_ways(
    patch: pytest.MonkeyPatch, model: nn.Module, rows: Any, spots: Sequence[Place], order: list[list[int]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of all contrasts, taken back one by one and many together, which is asserted."""
    real, ways = jacobian_module._backward, []
    patch.setattr(
        jacobian_module,
        "_backward",
        lambda *given, **how: (real(*given, **how), ways.append(how.get("together", False)))[0],
    )

    def found(few: int) -> list[Tensor]:
        ways.clear()
        patch.setattr(jacobian_module, "FEW_SEEDS", few)
        made = jacobian_module.slopes(model, rows, spots, contrasts, order=order)
        return [part for batch in made for part in batch.parts]

    alone = found(1 << 20)
    assert not any(ways)
    together = found(0)
    assert ways
    assert all(ways), "one by one after all"
    return alone, together
