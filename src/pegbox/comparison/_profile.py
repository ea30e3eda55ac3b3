"""How much a method's passes over a base take, from a few tokens that run through it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.comparison._made_up import made_up
from pegbox.comparison._probe import Law, Seen, watch, watch_trunk
from pegbox.methods import Attached, FewShot, Method, ZeroShot
from pegbox.models import Base
from pegbox.tasks import Choose, Prompt
from pegbox.training import Trainable, gradient_checkpointing, hush, quick_attention
from pegbox.tuning import TRUNK_STATES, TrunkRows, as_read, shape_of, with_readout, with_trunk_cached

ROWS = (2, 3)
TOKENS = (4, 8, 14)


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
        task = with_readout(prompt.task, base, method, hush)
        asked = shape_of(task).base(as_read(base, task), method)
        method.check(replace(asked, quantise=method.quantise) if method.quantise else asked)
        if asked is not base or task is not prompt.task:
            prompt = asked.prepare(task)
        prompt = method.prompt(asked, prompt)
        if isinstance(method, ZeroShot | FewShot) and isinstance(prompt, Prompt) and not prompt.distinct:
            # Whole words are scored then, for which any distinct tokens stand here.
            prompt = replace(prompt, answers=tuple((index,) for index in range(len(prompt.answers))))
        return cls(asked, prompt, method)

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


@dataclass(frozen=True)
class Profile:
    """What the passes of a method take, as laws in the rows and tokens of a batch.

    Args:
        trunk: Operations of the frozen trunk that runs once per row before training; ``None`` when it runs in
            every step.
        forward: Operations of a forward pass in a training step.
        backward: Operations of its backward pass.
        kept: Bytes that the forward pass keeps for it.
        calls: Torch functions that the forward pass calls, whatever the batch.
        parameters: Trained parameters.
        width: What the trunk hands on, in bytes per token; 0 without one.
        attaching: Seconds that it took to attach the method.
    """

    trunk: Law | None
    forward: Law
    backward: Law
    kept: Law
    calls: float
    parameters: int
    width: int = 0
    attaching: float = 0.0

    @classmethod
    def of(
        cls,
        asked: Asked,
        *,
        seed: int = 0,
        bf16: bool = False,
        trunk_cache: Any = "auto",
        recomputed: bool = False,
    ) -> Profile:
        """Watch small batches run through the module as it is trained.

        Args:
            asked: Base, prompt and method.
            seed: Seed of the method's initial values and of dropout.
            bf16: Whether passes run under bf16 autocast.
            trunk_cache: As in :class:`pegbox.Training`; how much memory is free is not asked.
            recomputed: Whether activations are computed again in backward passes.

        Raises:
            CapabilityError: When the method cannot be attached.
        """
        started = time.perf_counter()
        module = asked.module(seed=seed)
        attaching = time.perf_counter() - started
        trained = sum(value.numel() for value in module.parameters() if value.requires_grad)
        with _as_trained(asked.base.device, bf16=bf16, quick=bf16 and not recomputed, seed=seed):
            sizes = _sizes(asked)
            rows = made_up(asked.base, asked.prompt, [size for size in sizes for _ in range(max(ROWS))])
            rows = _replayed(asked, module, rows, wanted=trunk_cache, bf16=bf16)
            module.train()
            with gradient_checkpointing(module, recomputed):
                points = [
                    (count, tokens, *_pass(module, rows, [at * max(ROWS) + row for row in range(count)]))
                    for count in ROWS
                    for at, tokens in enumerate(sizes)
                ]
        forward, backward, kept = (
            Law.through([(count, tokens, getattr(seen, name)) for count, tokens, seen, *_ in points])
            for name in ("forward", "backward", "kept")
        )
        _, _, seen, _, width = points[0]
        below = [(count, tokens, part.forward) for count, tokens, _, part, _ in points if part is not None]
        trunk = Law.through(below) if below else None
        return cls(trunk, forward, backward, kept, seen.calls, trained, width, attaching)


@contextmanager
def _as_trained(device: torch.device, *, bf16: bool, quick: bool, seed: int) -> Iterator[None]:
    """Precision and attention of the engine; the global random generators stay as they are."""
    places = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(places),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        quick_attention(device, bf16=quick),
    ):
        torch.manual_seed(seed)
        yield


def _replayed(asked: Asked, module: nn.Module, rows: Trainable, *, wanted: Any, bf16: bool) -> Trainable:
    """The rows with the frozen trunk's states, where the engine would keep them."""
    if not isinstance(asked.method, Attached) or isinstance(asked.prompt.task, Choose):
        return rows
    precision = "bf16" if bf16 else "float32"
    return with_trunk_cached(module, [rows], wanted=wanted, precision=precision, say=hush)[0]


def _pass(module: nn.Module, rows: Trainable, indices: Sequence[int]) -> tuple[Seen, Seen | None, int]:
    """What one step takes, what the trunk below it took, and bytes per token between them."""
    device = next(module.parameters()).device
    batch = {name: value.to(device) for name, value in rows.collate(indices).items()}
    seen = watch(module, lambda: rows.loss(module, batch), [*batch.values()])
    if not isinstance(rows, TrunkRows):
        return seen, None, 0
    plain = {name: value for name, value in batch.items() if name != TRUNK_STATES}
    below = watch_trunk(rows.trunk, lambda: rows.rows.loss(module, plain))
    states: Tensor = batch[TRUNK_STATES]
    return seen, below, states.shape[-1] * states.element_size()


def _sizes(asked: Asked) -> list[int]:
    """Three numbers of tokens that hold the soft tokens and fit into the context."""
    room = max(asked.base.context - asked.soft, 4)
    return [asked.soft + min(tokens, room - len(TOKENS) + at + 1) for at, tokens in enumerate(TOKENS)]
