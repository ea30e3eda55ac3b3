"""The conformance table's checks: each takes a method's name and a family of models.

`tests/test_conformance.py` runs them on the package's trained methods, `tests/test_toy_method.py` on one from
elsewhere.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conformance import (
    FAMILIES,
    ROWS,
    base_answers,
    case_of,
    folder_of,
    generated,
    memorise,
    second_adapter,
    write_list,
)
from pegbox.errors import CapabilityError, InputError
from pegbox.methods import Attached, build, methods
from pegbox.tuning import Tuned


def method_of(name: str) -> Attached:
    method = build(name)
    assert isinstance(method, Attached)
    return method


def hole(name: str, family: str) -> str | None:
    """Why a method does not work on a family, by its capability row."""
    capability = methods()[name].capability
    architecture, kind = FAMILIES[family]
    if kind not in capability.kinds:
        return capability.refusals.get(kind, "another kind of model")  # type: ignore[call-overload]
    return capability.holes.get(architecture)


def skip_without(name: str, what: str) -> None:
    """Skip a check that a method's own row rules out, with the reason."""
    capability = methods()[name].capability
    reasons = {
        "start": None if capability.starts_at_base else "it does not start at the base: its row says so",
        "merge": None if capability.mergeable else f"it cannot be merged: {capability.inference}",
        "in place": "merging rounds into 4 bits again; pegbox merge dequantises (tests/test_tuning_merge.py)"
        if methods()[name].quantise
        else None,
        "adapter": "it has no adapter: the weights themselves are tuned" if methods()[name].whole else None,
    }
    if reasons[what]:
        pytest.skip(str(reasons[what]))


def starts_at_the_base(name: str, family: str) -> None:
    skip_without(name, "start")
    case = case_of(method_of(name), family)
    hidden, logits = base_answers(case)
    assert torch.equal(case.hidden(), hidden)
    assert torch.equal(case.logits(), logits)


def only_its_parameters_get_gradients(name: str, family: str) -> None:
    case = case_of(method_of(name), family, turned=True)
    case.loss().backward()
    mine = {id(value) for value in case.trained.values()}
    assert not mine & {id(value) for value in case.base.model.parameters()}
    for parameter, value in case.module.named_parameters():
        assert (value.grad is not None) == (id(value) in mine), parameter
    silent = [key for key, value in case.trained.items() if not value.grad.abs().sum()]  # type: ignore[union-attr]
    # An embedding row that no token of the batch looks up has nothing to learn, but no tensor is left out.
    assert not [key for key in silent if "score.bias" not in key], silent


def the_count_of_parameters_is_the_formula(name: str, family: str) -> None:
    case = case_of(method_of(name), family)
    assert sum(value.numel() for value in case.trained.values()) == case.method.parameters(
        case.base, case.prompt
    )


def it_memorises_a_batch(name: str, family: str) -> None:
    # Soft tokens before a random model of width 32 move all its answers, but hardly tell its rows apart, and
    # need larger steps than weights do: their batch has one label.
    soft = methods()[name].prompt is not Attached.prompt
    rate = 1e-1 if soft else 3e-3 if methods()[name].whole else 2e-2
    first, last = memorise(case_of(method_of(name), family), rate=rate, alike=soft)
    assert last < 0.7 * first


def off_is_the_base_and_on_is_back(name: str, family: str) -> None:
    skip_without(name, "adapter")
    case = case_of(method_of(name), family, turned=True)
    turned = case.logits()
    hidden, _ = base_answers(case)
    assert not torch.allclose(turned, base_answers(case)[1], atol=1e-4)
    if case.prompt == case.base.prepare(case.prompt.task):
        with case.adapter.disable_adapter():
            assert torch.equal(case.hidden(), hidden)
    assert torch.equal(case.logits(), turned)


def two_adapters_and_switching(name: str, family: str) -> None:
    skip_without(name, "adapter")
    case = case_of(method_of(name), family, turned=True)
    first = case.logits()
    second_adapter(case)
    second = case.logits()
    assert not torch.allclose(first, second, atol=1e-4)
    case.adapter.set_adapter("default")
    assert torch.equal(case.logits(), first)
    case.adapter.set_adapter("second")
    assert torch.equal(case.logits(), second)
    case.adapter.set_adapter("default")
    case.adapter.delete_adapter("second")
    case.adapter.set_adapter("default")  # PEFT forgets it where only a head is tuned
    assert torch.equal(case.logits(), first)


def merged_equals_unmerged_and_comes_back(name: str, family: str) -> None:
    skip_without(name, "adapter")
    skip_without(name, "merge")
    skip_without(name, "in place")
    case = case_of(method_of(name), family, turned=True)
    before = case.logits()
    # The base shares its tensors with the module, and merging writes into them.
    kept = {key: value.clone() for key, value in case.base.model.state_dict().items()}
    case.adapter.merge_adapter()
    try:
        # Two orders of the same float32 sums; the logits are of the order of one.
        torch.testing.assert_close(case.logits(), before, rtol=1e-4, atol=1e-4)
    finally:
        with warnings.catch_warnings():
            # PEFT says so of every unmerging of IA3, which divides; how far it is off is measured here.
            warnings.filterwarnings("ignore", message="Unmerge result can be inaccurate")
            case.adapter.unmerge_adapter()
    torch.testing.assert_close(case.logits(), before, rtol=1e-5, atol=1e-5)
    for key, value in case.base.model.state_dict().items():
        torch.testing.assert_close(value, kept[key], rtol=1e-5, atol=1e-6)


def generation_with_and_without_cache_and_padding(name: str, family: str) -> None:
    case = case_of(method_of(name), family, turned=True)
    if case.base.kind not in ("causal", "encoder-decoder"):
        pytest.skip(f"a {case.base.kind} model does not generate")
    ids = [list(row) for row in case.encoded.ids[:3]]
    ids[1] = ids[1][: len(ids[1]) - 3]  # so that the rows differ in length
    single = [generated(case, [row], use_cache=False)[0] for row in ids]
    assert [generated(case, [row], use_cache=True)[0] for row in ids] == single
    assert generated(case, ids, use_cache=True) == single


def bfloat16(name: str, family: str, tmp_path: Path) -> None:
    case = case_of(method_of(name), family, turned=True, dtype="bfloat16")
    first, last = memorise(case, steps=8, rate=5e-3)
    assert torch.isfinite(torch.tensor([first, last])).all()
    # Half of eight bits of mantissa from the same model in float32, after the same turn. In 4 bits it is not
    # the same model: bfloat16 weights fall on other codes, which moves the base alone by 0.2.
    if not case.base.quantise:
        exact = case_of(method_of(name), family, turned=True)
        fresh = case_of(method_of(name), family, turned=True, dtype="bfloat16")
        assert (fresh.logits() - exact.logits()).abs().max() < 0.15 * exact.logits().abs().max() + 0.1
    tuned = case.tuned()
    tuned.save(tmp_path / "saved")
    # A whole model brings its own weights, which a CPU would else compute in float32.
    given: dict[str, Any] = {"dtype": "bfloat16"} if tuned.weights else {"model": case.base}
    again = Tuned.load(tmp_path / "saved", **given, say=str)
    torch.testing.assert_close(again.logits(ROWS), tuned.logits(ROWS))


def weights_that_are_not_finite_are_refused(name: str, family: str, tmp_path: Path) -> None:
    case = case_of(method_of(name), family)
    case.tuned().save(tmp_path / "saved")
    files = [
        path
        for path in sorted((tmp_path / "saved").glob("*.safetensors"))
        if path.name in ("adapter_model.safetensors", "model.safetensors")
    ]
    assert files
    tensors = load_file(files[0])
    key = sorted(tensors)[-1]
    tensors[key] = torch.full_like(tensors[key], float("nan"))
    save_file(tensors, files[0], metadata={"format": "pt"})
    with pytest.raises(InputError, match="not a finite number"):
        Tuned.load(tmp_path / "saved", model=case.base)


CHECKS: tuple[Callable[[str, str], None], ...] = (
    starts_at_the_base,
    only_its_parameters_get_gradients,
    the_count_of_parameters_is_the_formula,
    it_memorises_a_batch,
    off_is_the_base_and_on_is_back,
    two_adapters_and_switching,
    merged_equals_unmerged_and_comes_back,
    generation_with_and_without_cache_and_padding,
)
CHECKS_OF_FILES: tuple[Callable[[str, str, Path], None], ...] = (
    bfloat16,
    weights_that_are_not_finite_are_refused,
)


@dataclass(frozen=True)
class ReadAgain:
    """What saved cases answer in a process that never saw them made.

    Args:
        answers: Of each case, as it was made.
        found: Of each case, loaded by Pegbox and by plain PEFT.
        failures: Of each case that could not be loaded.
    """

    answers: dict[str, Tensor]
    found: dict[str, Tensor]
    failures: dict[str, str]

    @classmethod
    def of(cls, cases: Iterable[tuple[str, str]], folder: Path, **environment: str) -> "ReadAgain":
        """Save every case in a folder, and load all of them in one process."""
        answers: dict[str, Tensor] = {}
        entries = []
        for name, family in cases:
            case = case_of(method_of(name), family, turned=True)
            key, place = f"{name}-{family}", folder / f"{name}-{family}"
            tuned = case.tuned()
            answers[key] = tuned.logits(ROWS)
            try:
                tuned.save(place)
            except CapabilityError:
                continue  # its own tests then fail for want of an answer
            model = str(folder_of(family, methods()[name].quantise))
            adapter = "yes" if (place / "adapter_config.json").is_file() else ""
            entries.append({"name": key, "folder": str(place), "model": model, "adapter": adapter})
        reader = Path(__file__).parent / "conformance_reader.py"
        command = [sys.executable, str(reader), str(write_list(folder, entries)), str(folder)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=reader.parent,
            env=os.environ | environment,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        failures = json.loads((folder / "failures.json").read_text("utf-8"))
        return cls(answers, load_file(folder / "answers.safetensors"), failures)

    def check(self, name: str, family: str, reader: str) -> None:
        """The answers are the same to the bit, loaded by ``pegbox`` or by plain ``peft``."""
        if reader == "peft":
            skip_without(name, "adapter")
        key = f"{name}-{family}"
        assert key not in self.failures, self.failures.get(key)
        assert torch.equal(self.found[f"{key}/{reader}"], self.answers[key])
