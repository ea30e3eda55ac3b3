"""Fold an adapter into weights of its own, and write them as a plain model folder."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.data import Rows, from_texts
from pegbox.errors import CapabilityError
from pegbox.methods import Method, expected_warnings, methods, with_adapter
from pegbox.models import Base, Dtype, PooledClassifier, number_format, output_layer, plain_layers, share
from pegbox.tasks import Classify
from pegbox.training import hush
from pegbox.tuning._plain import model_bytes
from pegbox.tuning._tuned import NO_POSTERIOR, Tuned

PROBES, PROBE_TOKENS = 32, 24


@dataclass(frozen=True)
class Merged:
    """What merging made and cost.

    Args:
        folder: Where the model lies.
        bytes: Size of its weights.
        dtype: Number format that they are written in.
        base_bytes: Size of the base's weights in memory.
        dequantised: Whether the base was in 4 bits.
        untied: Whether the output layer was tied to the input embedding and no longer is.
        rows: Rows that the changes were measured on; 0 where none could be.
        probed: Whether they were random tokens, for want of rows.
        max_change: Largest absolute change of an answer's logit against the adapter on its base.
        mean_change: Mean absolute change.
        flipped: Rows whose answer changed; of tagged sentences, words.
        posterior: Whether a posterior was in use, which the merged model is without.
    """

    folder: str
    bytes: int
    dtype: str
    base_bytes: int
    dequantised: bool
    untied: bool
    rows: int = 0
    probed: bool = True
    max_change: float = 0.0
    mean_change: float = 0.0
    flipped: int = 0
    posterior: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What there is to tell, one line each."""
        told = [f"{self.bytes / 2**20:.1f} MiB of weights in {self.dtype}, written to {self.folder}"]
        if self.dequantised:
            told.append(
                f"the base was in 4 bits ({self.base_bytes / 2**20:.1f} MiB): its weights are written as the "
                "values that the 4 bits stand for, which are not those of the original model"
            )
        if self.untied:
            told.append("the output layer was tied to the input embedding, which stays as it was: untied")
        if self.rows:
            kind = "random probes" if self.probed else "rows"
            told.append(
                f"logits on {self.rows} {kind} change by at most {self.max_change:.2g} "
                f"({self.mean_change:.2g} on average); {self.flipped} answers change"
            )
        if self.posterior:
            told.append(
                "the posterior is not taken along: probabilities are those of the tuned weights alone "
                "(pegbox laplace --part last-1 gives the merged model one of its own)"
            )
        return told


def merge(
    tuned: Tuned,
    folder: str | Path,
    *,
    rows: Rows | None = None,
    dtype: Dtype = "auto",
    overwrite: bool = False,
    seed: int = 0,
) -> Merged:
    """Write a tuned model as a plain model folder, its adapter folded into the weights.

    Transformers loads the folder by itself; ``pegbox evaluate`` and :meth:`Tuned.load` take it too.

    Args:
        tuned: A tuned model whose method can be merged.
        folder: Where.
        rows: Rows to measure the change of the answers on; random tokens when ``None``.
        dtype: Number format to write; ``auto`` is that of the base as it is loaded.
        overwrite: Whether an existing folder that Pegbox wrote may be replaced.
        seed: Of the random tokens.

    Raises:
        CapabilityError: When the method, or this base, cannot be merged.
    """
    merged = folded(tuned, dtype=dtype)
    assert merged.module is not None
    # First, since the folder may be the one that the tuned model was loaded from.
    changes = _changes(tuned, merged, rows, seed)
    place = merged.save(folder, overwrite=overwrite)
    return Merged(
        folder=str(place),
        bytes=model_bytes(place),
        dtype=str(_dtype(merged.module)).removeprefix("torch."),
        base_bytes=_bytes(tuned.base.model),
        dequantised=tuned.base.quantise is not None,
        untied=_tied(tuned.base.model) and not _tied(merged.module),
        posterior=tuned.averaged,
        **changes,
    )


def folded(tuned: Tuned, *, dtype: Dtype = "auto") -> Tuned:
    """The same answers by weights of its own, without an adapter; see :meth:`Tuned.merge`."""
    _check(tuned)
    adapter: Any = tuned.module
    config = copy.deepcopy(adapter.peft_config["default"])
    _check_tokens(config, f"{tuned.method.name} on {tuned.base.name}")
    own = _own_weights(tuned.base)
    targets = _targets(adapter)
    untied = _untie(own, targets)
    _check_bias(tuned, own, config, targets)
    module: Any = _put_back(adapter, own, config, len(tuned.prompt.task.labels))
    with expected_warnings():
        module = module.merge_and_unload(safe_merge=True)
    if untied:
        module.config.tie_word_embeddings = False
    if dtype != "auto":
        _cast(module, number_format(dtype, tuned.base.device))
    module.requires_grad_(False).eval()
    return replace(tuned, module=module, weights=True, grow=None, **NO_POSTERIOR)


def _check(tuned: Tuned) -> None:
    method = tuned.method
    possible = ", ".join(name for name, kind in methods().items() if kind.capability.mergeable)
    where = f"{method.name} on {tuned.base.name}"
    if tuned.weights:
        raise CapabilityError(
            f"there is nothing to merge: {method.name} already has weights of its own",
            where=where,
            fix="use the folder as it is: Transformers loads it",
        )
    if not method.capability.mergeable or tuned.module is None:
        raise CapabilityError(
            f"{method.name} cannot be merged: {_reason(method, tuned)}",
            where=where,
            expected=f"an adapter by one of {possible}",
            fix="keep the adapter on its base, or tune with one of these",
        )


def _check_tokens(config: Any, where: str) -> None:
    if getattr(config, "trainable_token_indices", None):
        raise CapabilityError(
            "the adapter holds embeddings of single tokens, which are not merged",
            where=where,
            expected="an adapter of layers alone",
            fix="keep the adapter on its base, or merge it with PEFT",
        )


def _reason(method: Method, tuned: Tuned) -> str:
    """Why not, from the capability table."""
    if tuned.module is None:
        return "nothing was tuned, all weights are the base's"
    return f"at prediction it needs {method.capability.inference}, which no weights of the base can stand for"


def _own_weights(base: Base) -> Base:
    """The base with a copy of all its weights, those in 4 bits as what they stand for."""
    known = {id(value) for value in base.model.parameters()}
    model = plain_layers(share(base.model), base.dtype) if base.quantise else share(base.model)
    copies: dict[int, nn.Parameter] = {}
    for part in model.modules():
        for name, value in part._parameters.items():
            if value is not None and id(value) in known:
                if id(value) not in copies:
                    copies[id(value)] = nn.Parameter(value.detach().clone(), requires_grad=False)
                part._parameters[name] = copies[id(value)]
    return replace(base, model=model, quantise=None)


def _targets(adapter: nn.Module) -> list[str]:
    """Names, in the base's module, of the layers that an adapter changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner: Any = adapter
    root = inner.get_base_model()
    return [name for name, part in root.named_modules() if isinstance(part, BaseTunerLayer)]


def _untie(own: Base, targets: list[str]) -> bool:
    """Give an output layer that is to be changed tensors of its own; whether it had shared them."""
    if own.kind == "encoder":
        return False
    name, layer = output_layer(own.model)
    if name not in targets or not _tied(own.model):
        return False
    for key, value in layer._parameters.items():
        if value is not None:
            layer._parameters[key] = nn.Parameter(value.detach().clone(), requires_grad=False)
    return True


def _check_bias(tuned: Tuned, own: Base, config: Any, targets: list[str]) -> None:
    if not getattr(config, "lora_bias", False):
        return
    module = own.module(len(tuned.prompt.task.labels))
    for name in targets:
        if getattr(module.get_submodule(name), "bias", None) is None:
            raise CapabilityError(
                f"the adapter has an intercept, and the layer {name} of {type(own.model).__name__} "
                "has no bias to take it",
                where=f"{tuned.method.name} on {tuned.base.name}",
                expected="an adapter without intercept",
                fix="tune with intercept false (--options.intercept false), or keep the adapter on its base",
            )


def _put_back(adapter: Any, own: Base, config: Any, labels: int) -> nn.Module:
    """The same adapter on other weights."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    module = own.module(labels)
    config.base_model_name_or_path = None  # or PEFT warns that it is another than the adapter's
    if hasattr(config, "fan_in_fan_out"):
        # GPT-2's layers are quantised as ordinary linear ones, which store their weights the other way round.
        config.fan_in_fan_out = any(
            not isinstance(module.get_submodule(name), nn.Linear) for name in _targets(adapter)
        )
    with expected_warnings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        state = get_peft_model_state_dict(adapter, save_embedding_layers=False)
        peft = with_adapter(own, module, config)
        set_peft_model_state_dict(peft, state)
    return peft.requires_grad_(False).eval()


def _changes(tuned: Tuned, merged: Tuned, rows: Rows | None, seed: int) -> dict[str, Any]:
    """How far the merged weights answer otherwise, as fields of :class:`Merged`."""
    asked = rows if rows is not None else _probe(tuned, seed)
    if asked is None or not len(asked):
        return {}
    say: Callable[[str], None] = tuned.say if rows is not None else hush
    before = replace(tuned, cache=None, say=say).logits(asked)
    after = replace(merged, cache=None, say=hush).logits(asked)
    # Minus infinity stands for what cannot be answered: an option that a row has not, a tag of a lost word.
    flat = (after - before)[torch.isfinite(before)].abs()
    return {
        "rows": len(asked),
        "probed": rows is None,
        "max_change": float(flat.max()),
        "mean_change": float(flat.mean()),
        "flipped": int((after.argmax(-1) != before.argmax(-1)).sum()),
    }


def _probe(tuned: Tuned, seed: int) -> Rows | None:
    """Texts of random tokens, for tasks that read texts."""
    task, dice = tuned.prompt.task, random.Random(seed)
    if not isinstance(task, Classify):
        return None
    words = tuned.base.tokenizer
    length = min(PROBE_TOKENS, max(1, tuned.base.context // 4))

    def text() -> str:
        ids = [dice.randrange(words.vocab_size) for _ in range(length)]
        return str(words.decode(ids, skip_special_tokens=True)).strip() or "text"

    many = [text() for _ in range(PROBES)]
    return from_texts(
        many if len(task.fields) == 1 else [(one, text()) for one in many],  # type: ignore[arg-type]
        task.fields,
    )


def _trunk(module: nn.Module) -> nn.Module:
    return module.encoder if isinstance(module, PooledClassifier) else module


def _dtype(module: nn.Module) -> torch.dtype:
    return next(_trunk(module).parameters()).dtype


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Round all weights, but those of a head; buffers stay, since some families need them exact."""
    for value in _trunk(module).parameters():
        value.data = value.data.to(dtype)


def _tied(model: nn.Module) -> bool:
    if isinstance(model, PooledClassifier):
        return False
    whole: Any = model
    layer = whole.get_output_embeddings()
    return layer is not None and layer.weight is whole.get_input_embeddings().weight


def _bytes(model: nn.Module) -> int:
    def size(value: Tensor) -> int:
        state: Any = getattr(value, "quant_state", None)
        scales = [] if state is None else [state.absmax, *([state.state2.absmax] if state.nested else [])]
        return sum(part.numel() * part.element_size() for part in (value, *scales))

    return sum(map(size, model.parameters()))
