"""How much a method's passes over a base take, from a few tokens that run through it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.comparison._probe import Law, Seen, watch, watch_trunk
from pegbox.methods import Attached, Method
from pegbox.models import Base, Trunk, answer_tokens, frozen_trunk, read, read_texts
from pegbox.tasks import Choose, Tag
from pegbox.tuning._readout import as_read, with_readout
from pegbox.tuning._shapes import shape_of

ROWS = (2, 3)
TOKENS = (4, 8, 14)
# Tokens of an option that are scored, where a task has options.
SAID = 2


@dataclass(frozen=True)
class Asked:
    """A base and a prompt as a method uses them: the trunk for a head, soft tokens in the prompt.

    Args:
        base: The base.
        prompt: The prompt.
        method: The method.
    """

    base: Base
    prompt: Any
    method: Method

    @classmethod
    def of(cls, base: Base, prompt: Any, method: Method) -> Asked:
        """What the method makes of a prompt that the base prepared.

        Raises:
            CapabilityError: When the method cannot work on the base or the task.
        """
        task = with_readout(prompt.task, base, method, _hush)
        asked = shape_of(task).base(as_read(base, task), method)
        method.check(replace(asked, quantise=method.quantise) if method.quantise else asked)
        if asked is not base or task is not prompt.task:
            prompt = asked.prepare(task)
        return cls(asked, method.prompt(asked, prompt), method)

    @property
    def soft(self) -> int:
        """Soft tokens that the method puts into the prompt."""
        placed = getattr(self.prompt, "soft", None)
        return placed.count if placed is not None else 0

    def module(self, *, seed: int = 0) -> nn.Module:
        """The base's module as the method trains it; full fine-tuning on the base's own numbers, uncopied.

        Raises:
            CapabilityError: When the method cannot be attached.
        """
        if not isinstance(self.method, Attached):
            return self.base.module(len(self.prompt.task.labels))
        if not self.method.whole:
            return self.method.attach(self.base, self.prompt, seed=seed)
        module = self.base.module(len(self.prompt.task.labels))
        own = {id(value): nn.Parameter(value.data) for value in module.parameters()}
        memo: dict[int, Any] = {**own, **{id(buffer): buffer for buffer in module.buffers()}}
        trained = copy.deepcopy(module, memo)
        for name, value in trained.named_parameters():
            value.requires_grad_("pooler" not in name.split("."))
        return trained

    def loss(self, module: nn.Module, rows: int, tokens: int) -> tuple[Callable[[], Tensor], list[Tensor]]:
        """A pass over rows of made-up tokens that ends in a loss as training's does, and its inputs."""
        batch = self._batch(rows, tokens)
        task = self.prompt.task
        if isinstance(task, Choose) and self.base.kind == "causal":
            said = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
            said[:, -SAID:] = True
            return lambda: read_texts(module, batch["input_ids"], said, use_cache=False).sum(), [
                *batch.values()
            ]
        if isinstance(task, Tag | Choose):
            del batch["answer_positions"]
            return lambda: module(**batch).float().logsumexp(-1).sum(), [*batch.values()]
        chosen = torch.tensor(answer_tokens(self.prompt), device=self.base.device)
        options = {"use_cache": False} if self.base.kind in ("causal", "encoder-decoder") else {}
        gold = torch.zeros(rows, dtype=torch.long, device=self.base.device)

        def run() -> Tensor:
            return functional.cross_entropy(read(module, batch, chosen, **options).logits.float(), gold)

        return run, [*batch.values(), chosen]

    def _batch(self, rows: int, tokens: int) -> dict[str, Tensor]:
        placed = getattr(self.prompt, "soft", None)
        soft = [*placed.leading, *placed.inner] if placed is not None else []
        ids = [*soft, *[self.base.pad] * (tokens - len(soft))]
        batch = {"input_ids": torch.tensor([ids] * rows), "answer_positions": torch.full((rows,), tokens - 1)}
        if self.base.kind != "causal":
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        if self.base.kind == "encoder-decoder":
            opening = self.prompt.opening
            batch["decoder_input_ids"] = torch.tensor([opening] * rows)
            batch["answer_positions"] = torch.full((rows,), len(opening) - 1)
        return {name: value.to(self.base.device) for name, value in batch.items()}


@dataclass(frozen=True)
class Profile:
    """What the passes of a method take, as laws in the rows and tokens of a batch.

    Args:
        trunk: Operations of the frozen trunk that runs once per row before training; ``None`` when it runs in
            every step.
        forward: Operations of a forward pass in a training step.
        backward: Operations of its backward pass.
        kept: Bytes that the forward pass keeps for it.
        parameters: Trained parameters.
        width: Width of what the trunk hands on, in bytes per token; 0 without one.
    """

    trunk: Law | None
    forward: Law
    backward: Law
    kept: Law
    parameters: int
    width: int = 0

    @classmethod
    def of(cls, asked: Asked, *, seed: int = 0, bf16: bool = False, trunk_cache: str = "auto") -> Profile:
        """Watch small batches run through the module as it is trained.

        Args:
            asked: Base, prompt and method.
            seed: Seed of the method's initial values and of dropout.
            bf16: Whether passes run under bf16 autocast.
            trunk_cache: As in :class:`pegbox.Training`; how much memory is free is not asked.
        """
        module = asked.module(seed=seed)
        trained = sum(value.numel() for value in module.parameters() if value.requires_grad)
        device = asked.base.device
        places = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(places), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            torch.manual_seed(seed)
            trunk = _cached_trunk(asked, module, trunk_cache)
            module.train()
            points = [
                (rows, tokens, *_pass(asked, module, trunk, rows, tokens))
                for rows in ROWS
                for tokens in _sizes(asked)
            ]
        forward, backward, kept = (
            Law.through([(rows, tokens, getattr(seen, name)) for rows, tokens, seen, *_ in points])
            for name in ("forward", "backward", "kept")
        )
        below = None
        if trunk is not None:
            below = Law.through([(rows, tokens, first.forward) for rows, tokens, _, first, _ in points])
        return cls(below, forward, backward, kept, trained, points[0][4])


def _pass(
    asked: Asked, module: nn.Module, trunk: Trunk | None, rows: int, tokens: int
) -> tuple[Seen, Seen, int]:
    """What one step takes, what the trunk below it took, and bytes per token between them."""
    run, inputs = asked.loss(module, rows, tokens)
    if trunk is None:
        return watch(module, run, inputs), Seen(), 0
    first, hidden = watch_trunk(trunk, run)
    with trunk.replay(hidden):
        seen = watch(module, run, [*inputs, hidden])
    return seen, first, hidden.shape[-1] * hidden.element_size()


def _cached_trunk(asked: Asked, module: nn.Module, wanted: str) -> Trunk | None:
    """The trunk that the engine would run once per row; see ``pegbox.tuning._trunk_rows``."""
    trunk = frozen_trunk(module) if wanted != "off" else None
    if trunk is None or isinstance(asked.prompt.task, Choose) or (trunk.dropout() and wanted == "auto"):
        return None
    run, _ = asked.loss(module, 1, _sizes(asked)[0])
    module.eval()
    return None if trunk.capture(run).requires_grad else trunk


def _sizes(asked: Asked) -> list[int]:
    """Three numbers of tokens that hold the soft tokens and fit into the context."""
    room = max(asked.base.context - asked.soft, 4)
    return [asked.soft + min(tokens, room - len(TOKENS) + at + 1) for at, tokens in enumerate(TOKENS)]


def _hush(_: str) -> None:
    """Say nothing: fit tells it when it is done."""
