from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.errors import CapabilityError, UsageError
from pegbox.models import POSITIONS, Trunk, batches, frozen_trunk
from pegbox.training import Trainable, resolve_precision

TRUNK_STATES = "trunk_states"
TrunkCache = Literal["auto", "on", "off"]
TRUNK_TOKENS = 4096
# Of the memory that is free when training starts.
TRUNK_MEMORY_SHARE = 0.25


class TrunkRows:
    """Rows whose frozen trunk has run already, so that each step starts from its stored hidden states.

    Args:
        rows: The rows.
        trunk: The trunk of the model that is trained.
        states: Hidden states of each row at the end of the trunk, (tokens of the row, width).
        narrow: Whether the topmost block works at the answers alone, where rows have one each.
    """

    def __init__(
        self, rows: Trainable, trunk: Trunk, states: Sequence[Tensor], *, narrow: bool = False
    ) -> None:
        self._rows, self._trunk, self._states, self._narrow = rows, trunk, states, narrow

    @property
    def rows(self) -> Trainable:
        """The rows themselves, whose loss runs through the trunk."""
        return self._rows

    @property
    def trunk(self) -> Trunk:
        """The trunk whose states are stored."""
        return self._trunk

    def narrowed(self) -> TrunkRows:
        """The same with the topmost block at the answers alone."""
        return TrunkRows(self._rows, self._trunk, self._states, narrow=True)

    def __len__(self) -> int:
        return len(self._rows)

    def __getattr__(self, name: str) -> object:
        """What else the rows tell the engine, such as their lengths and classes."""
        return getattr(self._rows, name)

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        return self._rows.lengths

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The rows' own batch with their stored states, padded by zeros: (batch, tokens, width)."""
        batch = self._rows.collate(indices)
        width = self._states[0].shape[-1]
        states = self._states[0].new_zeros(len(indices), batch["input_ids"].shape[1], width)
        for at, index in enumerate(indices):
            kept = self._states[index]
            states[at, : len(kept)] = kept
        return {**batch, TRUNK_STATES: states}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The rows' own loss, from the stored states on."""
        rest = {key: value for key, value in batch.items() if key != TRUNK_STATES}
        with self._trunk.replay(batch[TRUNK_STATES], batch[POSITIONS] if self._narrow else None):
            return self._rows.loss(model, rest)


@dataclass(frozen=True)
class _Unfit(Exception):
    """Why the trunk is not cached, and whether that can surprise whoever did not ask for it."""

    reason: str
    surprising: bool = True


def check_trunk_cache(wanted: str) -> None:
    """Raise UsageError for what is no choice."""
    if wanted not in get_args(TrunkCache):
        raise UsageError(f"trunk_cache is {wanted!r}", expected="auto, on or off")


def with_trunk_cached(
    model: nn.Module,
    parts: Sequence[Trainable],
    *,
    wanted: TrunkCache,
    precision: str,
    say: Callable[[str], None],
) -> list[Trainable]:
    """Run the frozen trunk once per row where what is trained lies above it.

    Args:
        model: The module that will be trained.
        parts: Training rows, and validation rows where there are some.
        wanted: ``auto`` where the result stays the same and the states fit into memory; ``on`` also where
            the trunk has dropout, which it then loses, and else an error; ``off`` never.
        precision: As in :class:`pegbox.training.Settings`.
        say: Receives a line on what was done.

    Returns:
        The parts, with stored states or as they were.

    Raises:
        CapabilityError: When it is ``on`` and cannot be done.
    """
    check_trunk_cache(wanted)
    if wanted == "off":
        return list(parts)
    trunk = frozen_trunk(model)
    try:
        if trunk is None:
            raise _Unfit(
                "what is trained reaches down to the lowest layer, or there is no single stack of layers"
            )
        if any(hasattr(part, "begin_epoch") for part in parts):
            raise _Unfit("the demonstrations change from epoch to epoch")
        return _cached(trunk, parts, wanted, precision, say)
    except _Unfit as unfit:
        if wanted == "on":
            raise CapabilityError(
                f"the frozen trunk cannot be cached: {unfit.reason}",
                where="training.trunk_cache on",
                expected="a method that changes the top layers only, such as head, or one with layers=",
                fix="leave trunk_cache at auto",
            ) from None
        if trunk is not None and unfit.surprising:
            say(f"the frozen trunk runs in every step: {unfit.reason}")
        return list(parts)


def _cached(
    trunk: Trunk, parts: Sequence[Trainable], wanted: str, precision: str, say: Callable[[str], None]
) -> list[Trainable]:
    rate = trunk.dropout()
    if rate and wanted == "auto":
        raise _Unfit(
            f"it has dropout ({rate:g}), which stored activations lose (trunk_cache on does so all the same)"
        )
    device = next(trunk.model.parameters()).device
    bf16 = resolve_precision(precision, device) == "bf16"
    training = trunk.model.training
    trunk.model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            if _captured(trunk, parts[0], [0]).requires_grad:
                # True of every soft prompt: nothing that a user could change.
                raise _Unfit(
                    "something is trained that comes before its end, such as an embedding", surprising=False
                )
            made = [TrunkRows(part, trunk, _states(trunk, part)) for part in parts]
            _check(trunk, parts[0], made[0])
        if _narrows(trunk, made[0]):
            made = [part.narrowed() for part in made]
    finally:
        trunk.model.train(training)
    count = sum(map(len, parts))
    lost = f", without its dropout of {rate:g}" if rate else ""
    say(f"the {len(trunk.blocks)} frozen layers below were run once for each of {count} rows{lost}")
    return [*made]


def _states(trunk: Trunk, rows: Trainable) -> list[Tensor]:
    lengths = [int(length) for length in rows.lengths]
    states: list[Tensor] = [torch.empty(0)] * len(lengths)
    checked = False
    for indices in track(batches(lengths, TRUNK_TOKENS), "running the frozen layers"):
        with torch.no_grad():
            hidden = _captured(trunk, rows, indices)
        if len(hidden) != len(indices):
            raise _Unfit("one row of this task is several sequences")
        if not checked:
            _check_memory(sum(lengths) * hidden.shape[-1] * hidden.element_size())
            checked = True
        for at, index in enumerate(indices):
            states[index] = hidden[at, : lengths[index]].cpu().clone()
    return states


def _captured(trunk: Trunk, rows: Trainable, indices: Sequence[int]) -> Tensor:
    device = next(trunk.model.parameters()).device
    batch = {key: value.to(device) for key, value in rows.collate(indices).items()}
    try:
        return trunk.capture(lambda: rows.loss(trunk.model, batch))
    except LookupError as error:
        raise _Unfit(str(error)) from None


def _check_memory(needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if needed > TRUNK_MEMORY_SHARE * free:
        raise _Unfit(
            f"its states need {needed / 2**20:,.0f} MiB, and of {free / 2**20:,.0f} MiB that are free "
            f"only {TRUNK_MEMORY_SHARE:.0%} may be used for them"
        )


def _check(trunk: Trunk, rows: Trainable, cached: Trainable) -> None:
    """Compare the loss of one row by both ways: a family may look past the blocks' hidden states."""
    losses = [_loss(trunk, part, [0]) for part in (rows, cached)]
    # The batch is another than the one that made the states, so sums are taken in another order.
    if abs(losses[0] - losses[1]) > 2e-2 * max(1.0, abs(losses[0])):
        raise _Unfit("this architecture's upper layers look at more than the hidden states below them")


def _narrows(trunk: Trunk, rows: TrunkRows) -> bool:
    """Whether the topmost block may work at the answers alone, by the loss of the longest and shortest row.

    Only batches of causal models come without a mask (see :func:`pegbox.models.collate`).
    """
    order = sorted(range(len(rows)), key=lambda index: rows.lengths[index])
    indices = [order[0], order[-1]]
    batch = rows.collate(indices)
    if trunk.top is None or "attention_mask" in batch or POSITIONS not in batch:
        return False
    try:
        losses = [_loss(trunk, part, indices) for part in (rows, rows.narrowed())]
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # its code takes no keys and values, or asks a cache for more
    rounding = 16 * torch.finfo(batch[TRUNK_STATES].dtype).eps
    return abs(losses[0] - losses[1]) <= rounding * max(1.0, abs(losses[0]))


@torch.no_grad()
def _loss(trunk: Trunk, rows: Trainable, indices: Sequence[int]) -> float:
    device = next(trunk.model.parameters()).device
    batch = {key: value.to(device) for key, value in rows.collate(indices).items()}
    return float(rows.loss(trunk.model, batch)[0])
