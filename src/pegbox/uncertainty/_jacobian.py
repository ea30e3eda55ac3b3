"""Exact gradients of each row's scores by the uncertain weights, from their layers' inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pegbox.data import rows_text
from pegbox.errors import CapabilityError, RunError
from pegbox.models import batches, in_mode, watched
from pegbox.uncertainty._places import Place
from pegbox.uncertainty._scored import Scored

# Larger batches take three times the memory on a CPU and no less time.
TOKENS_PER_BATCH = {"cpu": 256}
TOKENS_ON_ACCELERATOR = 16384
NUMBERS_PER_BATCH = {"cpu": 1 << 25}
NUMBERS_ON_ACCELERATOR = 1 << 28
MOST_NUMBERS = 1 << 31
# Gradients that one pass takes back together: seeds times tokens. Few seeds gain nothing by it.
TOGETHER = {"cpu": 4096}
TOGETHER_ON_ACCELERATOR = 1 << 18
FEW_SEEDS = 3

Seeds = Callable[[Tensor], Tensor]
"""Maps scores (batch, answers) to what their gradients are weighted with, (batch, answers, seeds)."""


@dataclass(frozen=True, eq=False)
class Slopes:
    """Scores of a batch with the gradients of weighted sums of them.

    Args:
        indices: Which rows.
        scores: (batch, answers); minus infinity for an answer that a row lacks.
        seeds: (batch, answers, seeds) the weights.
        parts: For each place (batch, seeds, outputs, inputs).
    """

    indices: list[int]
    scores: Tensor
    seeds: Tensor
    parts: list[Tensor]


@dataclass(eq=False)
class _Tap:
    """What went into and came out of one layer."""

    place: Place
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def record(self, given: Tensor, found: Tensor) -> None:
        self.inputs.append(given.detach())
        self.outputs.append(found)

    def gradient(self, slopes: Sequence[Tensor | None], units: int, seeds: Sequence[int] = ()) -> Tensor:
        """(*seeds, units, outputs, inputs) from the gradients of the outputs, of several seeds or of one."""
        total: Tensor | None = None
        for given, slope in zip(self.inputs, slopes, strict=True):
            if slope is None:
                continue
            part = _product(self.place, given, slope, units)
            total = part if total is None else total + part
        if total is None:
            total = torch.zeros(*seeds, units, *self.place.shape, device=self.place.layer.weight.device)
        return total

    def check(self) -> None:
        """Raise CapabilityError when the layer was not called, so that nothing is known of its numbers."""
        if not self.inputs:
            raise CapabilityError(
                f"{self.place.name} takes no part in the answers as a layer of its own",
                where=type(self.place.layer).__name__,
                expected="LoRA on linear layers that the model calls, and not merged",
                fix="load the adapter unmerged, and tune with --method lora",
            )


def _product(place: Place, given: Tensor, slope: Tensor, units: int) -> Tensor:
    if given.shape[0] != units or given.dim() not in (2, 3):
        raise CapabilityError(
            f"{place.name} sees the tokens of several rows at once",
            where=f"an input of the shape {tuple(given.shape)} for {units} texts",
            expected="a layer that sees (texts, tokens, width)",
            fix="choose other --targets for LoRA",
        )
    if place.rows is not None and slope.shape[-1] != len(place.rows):
        slope = slope[..., list(place.rows)]  # the whole layer was computed
    kind = torch.promote_types(slope.dtype, torch.float32)
    given, slope = given.to(kind), slope.to(kind)
    if given.dim() == 2:
        given, slope = given[:, None], slope[..., None, :]
    found = slope.mT @ given
    if place.layer.bias is None:
        return found
    return torch.cat([found, slope.sum(-2)[..., None]], dim=-1)


@contextmanager
def _tapped(places: Sequence[Place]) -> Iterator[list[_Tap]]:
    """Record the layers' inputs and outputs; what the layers were is what they are afterwards."""
    taps = [_Tap(place) for place in places]
    by_layer = {id(tap.place.layer): tap for tap in taps}
    was = [(value, value.requires_grad) for place in places for value in place.layer.parameters()]

    def seen(layer: nn.Module, given: Tensor, found: Tensor) -> None:
        if id(layer) in by_layer:
            by_layer[id(layer)].record(given, found)

    with ExitStack() as stack:
        for tap in taps:
            hook = tap.place.layer.register_forward_hook(
                lambda _, given, found, tap=tap: tap.record(given[0], found)
            )
            stack.callback(hook.remove)
        for value, flag in was:
            value.requires_grad_(True)
            stack.callback(value.requires_grad_, flag)
        stack.enter_context(watched(seen))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield taps


def slopes(
    model: nn.Module, rows: Scored, places: Sequence[Place], seeds: Seeds, *, order: Sequence[Sequence[int]]
) -> Generator[Slopes, None, None]:
    """Go through batches of rows; one backward pass per seed serves all rows of a batch.

    Args:
        model: The model whose layers the places are.
        rows: The rows.
        places: The uncertain layers.
        seeds: What to take gradients of.
        order: Row numbers of each batch, as :func:`in_batches` gives them.
    """
    device = places[0].layer.weight.device
    with in_mode(model, training=False):
        for indices in order:
            with _tapped(places) as taps:
                batch = {name: value.to(device) for name, value in rows.collate(indices).items()}
                scores = rows.scores(model, batch)
                _check(scores, indices)
                for tap in taps:
                    tap.check()
                weights = seeds(scores.detach()).to(scores.dtype)
                by = _by_option if rows.own_texts else _by_row
                parts = by(taps, scores, weights)
            yield Slopes(list(indices), scores.detach(), weights, parts)


def _check(scores: Tensor, indices: Sequence[int]) -> None:
    """Raise RunError for scores that are not numbers."""
    bad = torch.isnan(scores).any(1) | ~torch.isfinite(scores.amax(1))
    if bad.any():
        raise RunError(
            "the answers are not finite numbers",
            where=rows_text(indices[place] + 1 for place in bad.nonzero()[:, 0].tolist()),
            expected="finite logits",
            fix="load the base in float32, or tune again with a lower learning rate",
        )


def _backward(
    taps: Sequence[_Tap], scores: Tensor, weights: Tensor, units: int, *, keep: bool, together: bool = False
) -> list[Tensor]:
    """One pass back for weights of the scores' shape, or for several of them in front of each other."""
    there = torch.isfinite(scores)
    found = torch.autograd.grad(
        scores[there],
        [output for tap in taps for output in tap.outputs],
        weights[..., there],
        retain_graph=keep,
        allow_unused=True,
        is_grads_batched=together,
    )
    parts, at, seeds = [], 0, weights.shape[:-2]
    for tap in taps:
        parts.append(tap.gradient(found[at : at + len(tap.outputs)], units, seeds))
        at += len(tap.outputs)
    return parts


def _by_row(taps: Sequence[_Tap], scores: Tensor, weights: Tensor) -> list[Tensor]:
    """Passes back for all seeds: many together where the model's operations can be, else each alone."""
    each = weights.permute(2, 0, 1).contiguous()
    if len(each) > FEW_SEEDS:
        tokens = max((given.shape[:-1].numel() for tap in taps for given in tap.inputs), default=1)
        size = max(1, TOGETHER.get(scores.device.type, TOGETHER_ON_ACCELERATOR) // max(1, tokens))
        with suppress(RuntimeError), warnings.catch_warnings():
            # An operation without a rule for many gradients at once is done for each, which is no fault.
            warnings.filterwarnings("ignore", "There is a performance drop because we have not yet")
            parts = [
                _backward(taps, scores, some, len(scores), keep=True, together=True)
                for some in each.split(size)
            ]
            return [torch.cat(own).transpose(0, 1) for own in zip(*parts, strict=True)]
    last = len(each) - 1
    passes = [_backward(taps, scores, one, len(scores), keep=at < last) for at, one in enumerate(each)]
    return [torch.stack(parts, dim=1) for parts in zip(*passes, strict=True)]


def _by_option(taps: Sequence[_Tap], scores: Tensor, weights: Tensor) -> list[Tensor]:
    """One backward pass for all options; their gradients are weighted afterwards."""
    there = torch.isfinite(scores)
    single = _backward(taps, scores, torch.ones_like(scores), int(there.sum()), keep=False)
    found = []
    for part in single:
        spread = part.new_zeros(*scores.shape, *part.shape[1:])
        spread[there] = part
        found.append(torch.einsum("bkoi,bks->bsoi", spread, weights.to(part.dtype)))
    return found


def in_batches(
    rows: Scored, places: Sequence[Place], seeds: int, *, only: Sequence[int] | None = None
) -> list[list[int]]:
    """Row numbers in batches of like length that fit into memory with their gradients.

    Args:
        rows: The rows.
        places: The uncertain layers.
        seeds: Gradients of a row.
        only: Row numbers to take; all when ``None``.

    Raises:
        CapabilityError: When the gradients of one row are too many.
    """
    texts = max(1, rows.answers) if rows.own_texts else 1
    numbers = sum(place.size for place in places) * max(1, seeds, texts)
    if numbers > MOST_NUMBERS:
        raise CapabilityError(
            f"the gradients of one row are {numbers:,} numbers, {4 * numbers / 2**30:.1f} GiB",
            expected=f"at most {4 * MOST_NUMBERS / 2**30:.0f} GiB",
            fix="take the part head, a lower rank of LoRA, or fewer labels",
        )
    device = places[0].layer.weight.device.type
    most = max(1, NUMBERS_PER_BATCH.get(device, NUMBERS_ON_ACCELERATOR) // numbers)
    chosen = list(range(len(rows))) if only is None else list(only)
    lengths = [rows.lengths[index] * texts for index in chosen]
    groups = batches(lengths, TOKENS_PER_BATCH.get(device, TOKENS_ON_ACCELERATOR), rows=most)
    return [[chosen[at] for at in group] for group in groups]
