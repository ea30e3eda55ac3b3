"""Several tuned models on one copy of a base: switched by adding to its weights and taking away again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, UsageError, nearest
from pegbox.models import Base
from pegbox.tuning._saving import described
from pegbox.tuning._tuned import NO_POSTERIOR, Tuned


@dataclass(frozen=True, eq=False)
class _Change:
    """What one LoRA does to one matrix: scale B A, in the matrix's own orientation.

    Args:
        up: B, (rows, rank).
        down: A, (rank, columns).
        scale: Its factor.
    """

    up: Tensor
    down: Tensor
    scale: float

    def add(self, weight: Tensor, sign: float) -> None:
        """Add it to a weight in place, or take it away with a sign of -1."""
        change = (self.up @ self.down) * (sign * self.scale)
        weight.add_(change.to(weight.dtype))


@dataclass(eq=False)
class _Entry:
    tuned: Tuned
    changes: dict[int, _Change] = field(default_factory=dict)


class Switchboard:
    """Tuned models of one base that take turns in its weights, so that each runs as fast as the base.

    Adapters must be LoRA (``lora``, ``closed-form``) or a head alone, on a base that is not quantised. One
    is on at a time; asking another is an error, not an answer of the wrong task.

    Args:
        base: The base that all were tuned on, as :func:`pegbox.load` gave it.
        keep: Keep the base as it is and work on a copy of the tensors that adapters change, so that switching
            off restores every bit. Without, the base's own tensors are changed and mended by subtraction,
            which leaves rounding (below 1e-6 in float32), and nothing else may use the base meanwhile.
    """

    def __init__(self, base: Base, *, keep: bool = True) -> None:
        if base.quantise:
            raise CapabilityError(
                "nothing can be added to weights in 4 bits",
                where=base.name,
                expected="a base in float32 or bfloat16",
                fix="load it without quantise",
            )
        self._base, self._keep = base, keep
        self._entries: dict[str, _Entry] = {}
        self._inputs: nn.Parameter = base.model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
        self._weights: dict[int, nn.Parameter] = {}
        self._originals: dict[int, nn.Parameter] = {}
        self._on: str | None = None

    @property
    def on(self) -> str | None:
        """Name of the tuned model that is on."""
        return self._on

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tuned models."""
        return tuple(self._entries)

    def add(self, name: str, tuned: Tuned | str | Path, **options: Any) -> None:
        """Take in a tuned model; the one that is on stays on.

        Args:
            name: What to call it.
            tuned: A tuned model on this base, or its folder.
            options: As for :meth:`Tuned.load`.

        Raises:
            UsageError: When the name is taken.
            InputError: When the folder cannot be used, or is of another base.
            CapabilityError: For an adapter that is no LoRA.
        """
        if name in self._entries:
            raise UsageError(f"the name '{name}' is taken", expected="a name of its own for each tuned model")
        found = tuned if isinstance(tuned, Tuned) else Tuned.load(tuned, model=self._base, **options)
        self._check(found, name)
        self._entries[name] = self._entry(found, name)

    def use(self, name: str) -> Tuned:
        """Switch to a tuned model, which answers until another is switched on.

        Raises:
            UsageError: When there is none of this name.
        """
        if name not in self._entries:
            raise UsageError(
                f"there is no tuned model '{name}' on this board",
                expected=", ".join(self._entries) or "one that was added",
                fix=nearest(name, self._entries),
            )
        if self._on != name:
            self.off()
            self._turn(name, 1.0)
            self._on = name
        return self._entries[name].tuned

    @contextmanager
    def using(self, name: str) -> Iterator[Tuned]:
        """Switch to a tuned model for the time of a block, then back to what was on before."""
        before = self._on
        try:
            yield self.use(name)
        finally:
            if before is None:
                self.off()
            else:
                self.use(before)

    def off(self) -> None:
        """Bring the weights back to those of the base."""
        if self._on is not None:
            self._turn(self._on, -1.0)
            self._on = None

    @torch.no_grad()
    def _turn(self, name: str, sign: float) -> None:
        for key, change in self._entries[name].changes.items():
            if sign < 0 and key in self._originals:
                self._weights[key].copy_(self._originals[key])
            else:
                change.add(self._weights[key], sign)

    def _check(self, tuned: Tuned, name: str) -> None:
        kinds = {config.peft_type for config in getattr(tuned.module, "peft_config", {}).values()}
        if kinds != {"LORA"}:
            raise CapabilityError(
                f"'{name}' cannot be switched: {tuned.method.name} is no LoRA adapter",
                where=name,
                expected="a model tuned by lora, closed-form or head",
                fix="load it by itself with Tuned.load",
            )
        extra = _beyond_product(tuned.module)
        if extra:
            raise CapabilityError(
                f"'{name}' cannot be switched: its adapter has {extra}, which is no low-rank product",
                where=name,
                expected="LoRA on linear layers alone",
                fix="load it by itself with Tuned.load",
            )
        if tuned.base.fingerprint != self._base.fingerprint:
            raise UsageError(
                f"'{name}' was tuned on another base",
                where=tuned.base.name,
                expected=f"one that was tuned on {self._base.name}",
                fix="make a board for each base",
            )

    def _entry(self, tuned: Tuned, name: str) -> _Entry:
        from peft.tuners.lora import LoraLayer

        adapter: Any = tuned.module
        adapted = {
            n: part for n, part in adapter.get_base_model().named_modules() if isinstance(part, LoraLayer)
        }
        same = tuned.base.kind == self._base.kind
        base = self._base if same else self._base.headed(tuned.base.pooling)
        module = base.module(len(tuned.prompt.task.labels))
        head = getattr(adapter.get_base_model(), "score", None)
        if head is not None and hasattr(head, "modules_to_save"):
            module.score.load_state_dict(head.modules_to_save["default"].state_dict())  # type: ignore[operator, union-attr]
        entry = _Entry(tuned)
        for place, layer in adapted.items():
            self._wire(entry, module, place, layer)
        module.register_forward_pre_hook(lambda *_: self._must_be_on(name))
        module.requires_grad_(False).eval()
        # A base that is changed in place has no answers of its own to compare with.
        origin = None if self._keep else described(base)
        entry.tuned = replace(
            tuned,
            base=base,
            module=module,
            weights=True,
            **NO_POSTERIOR,
            grow=None,
            features=None,
            origin=origin,
        )
        return entry

    def _wire(self, entry: _Entry, module: nn.Module, place: str, layer: Any) -> None:
        """Put the shared weight into the module, and note what is to be added to it."""
        target: Any = module.get_submodule(place)
        up, down = layer.lora_B["default"], layer.lora_A["default"]
        scale = float(layer.scaling["default"])
        if up.bias is not None:
            own = torch.zeros_like(up.bias) if target.bias is None else target.bias.detach().clone()
            bias = (own + scale * up.bias.detach()).to(target.weight.dtype)
            target.bias = nn.Parameter(bias, requires_grad=False)
        change = _Change(up.weight.detach(), down.weight.detach(), scale)
        if layer.fan_in_fan_out:
            change = _Change(change.down.T, change.up.T, scale)
        if place == "score":  # an encoder's head is no part of the base: it has weights of its own
            with torch.no_grad():
                change.add(target.weight, 1.0)
            return
        key, weight = self._working(target.weight)
        if target.weight is self._inputs:
            module.config.tie_word_embeddings = False  # type: ignore[union-attr]
        target.weight = weight
        entry.changes[key] = change

    def _working(self, original: nn.Parameter) -> tuple[int, nn.Parameter]:
        """The tensor that adapters are added to in place of one of the base's, and its key."""
        key = id(original)
        if key not in self._weights:
            # An output layer that is tied to the input embedding must not take that along.
            if self._keep or original is self._inputs:
                self._weights[key] = nn.Parameter(original.detach().clone(), requires_grad=False)
                self._originals[key] = original
            else:
                self._weights[key] = original
        return key, self._weights[key]

    def _must_be_on(self, name: str) -> None:
        if self._on != name:
            raise UsageError(
                f"the tuned model '{name}' is switched off",
                where=f"on now: {self._on or 'none'}",
                fix=f"switch to it with use('{name}')",
            )


def _beyond_product(module: Any) -> str:
    """What an adapter from elsewhere may change besides adding B A to weights; empty when nothing."""
    from peft.tuners.lora import LoraLayer

    config = module.peft_config["default"]
    layers = [part for part in module.modules() if isinstance(part, LoraLayer)]
    faults = {
        "rescaled columns (DoRA)": config.use_dora,
        "weights trained as a whole": set(config.modules_to_save or ()) - {"score"},
        "trained token embeddings": config.trainable_token_indices,
        "an embedding or parameter among its targets": any("default" not in part.lora_A for part in layers)
        or config.target_parameters,
    }
    return next((fault for fault, found in faults.items() if found), "")
