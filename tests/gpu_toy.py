"""Tiny bases on a place of choice, and what the tests of a GPU fit on them."""

import copy
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pegbox
from four_bit_toy import wide_folder
from pegbox.data import Examples, Sentences
from pegbox.methods import Attached, methods
from pegbox.models import Base, encode
from pegbox.tasks import Tag
from pegbox.tuning._label_rows import LabelRows
from tiny import tiny_folder
from tuning_toy import fit, hush, rows_of

# Where all is computed that is compared with a CPU; `cpu` is for working on these tests without a GPU.
PLACE = os.environ.get("PEGBOX_TEST_PLACE", "cuda")
FAMILIES: dict[str, tuple[str, str]] = {
    "llama": ("llama", "causal"),
    "gpt2": ("gpt2", "causal"),
    "bert": ("bert", "masked"),
    "bert-encoder": ("bert", "encoder"),
    "t5": ("t5", "encoder-decoder"),
}
HERE = PLACE == "cpu" or torch.cuda.is_available()
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HERE, reason="no GPU is to be seen here: see make test-gpu"),
    # Which warnings a GPU's libraries give is not what is tested here; they are told at the end.
    pytest.mark.filterwarnings("default"),
]
DTYPES = ("float32", "bfloat16")
ROWS = rows_of(24, noise=0.0)
# Most are of one label: soft tokens hardly tell rows apart, but soon learn what most rows answer.
UNEVEN = ROWS.select([at for at in range(24) if at % 2 or at < 8])
# What only scales, or stands in front, needs larger steps than weights, and a whole model smaller ones.
RATES = dict.fromkeys(("ia3", "prefix", "soft-prompt", "zero-init-attention"), 0.1) | {"full": 3e-3}
STEPS = 12
_FOLDERS: list[tempfile.TemporaryDirectory] = []  # type: ignore[type-arg]


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


def folder_of(family: str, quantise: Any = None) -> Path:
    """A tiny model on disk; one in 4 bits must be wider."""
    return (wide_folder if quantise else tiny_folder)(*FAMILIES[family])


@cache
def base_on(family: str, dtype: Any = "float32", place: str = PLACE, quantise: Any = None) -> Base:
    """A tiny base on a device, loaded once."""
    return pegbox.load(folder_of(family, quantise), dtype=dtype, device=place, quantise=quantise)


def hole(name: str, family: str, *, quantise: bool = False) -> bool:
    """Whether a method does not work on a family, by its capability row."""
    capability = methods()[name].capability
    architecture, kind = FAMILIES[family]
    unfit = kind not in capability.kinds or architecture in capability.holes
    return unfit or (quantise and not capability.quantised)


def training(name: str, family: str, dtype: str, **options: Any) -> pegbox.Training:
    """All rows in each of a few steps; nothing is written on the way."""
    rate = RATES.get(name, 2e-2)
    given = {
        "epochs": STEPS,
        "batch_size": len(UNEVEN),
        # A head that starts at zero is thrown about by large steps below it.
        "learning_rate": min(rate, 1e-2) if family == "bert-encoder" else rate,
        "precision": "float32" if dtype == "float32" else "bf16",
        "patience": 0,
        "checkpoint_every": 1000,
        **options,
    }
    return pegbox.Training(**given)


@cache
def tuned_on(name: str, family: str, dtype: str, quantise: Any = None) -> tuple[pegbox.Tuned, Path]:
    """A method fitted on the place, and the folder that it was saved in."""
    base = base_on(family, dtype, PLACE, quantise)
    assert base.device.type == PLACE
    tuned = fit(base, name, UNEVEN, training=training(name, family, dtype))
    place = tempfile.TemporaryDirectory(prefix="pegbox-gpu-")
    _FOLDERS.append(place)
    return tuned, tuned.save(Path(place.name) / "tuned")


def loaded(folder: Path, place: str, dtype: str) -> pegbox.Tuned:
    """A saved model on a device."""
    return pegbox.Tuned.load(folder, device=place, dtype=dtype, say=hush)


def losses(tuned: pegbox.Tuned) -> list[float]:
    """The training loss of each step."""
    return [loss for _, loss in tuned.details["history"]["train_losses"]]


@torch.no_grad()
def loss_of(tuned: pegbox.Tuned, module: torch.nn.Module) -> float:
    """The mean loss of the training rows under a module of a tuned model's base, without dropout."""
    base, prompt = tuned.base, tuned.prompt
    gold = prompt.task.gold(UNEVEN)
    rows = LabelRows(base, prompt, encode(base, prompt, UNEVEN, say=hush), gold)
    batch = {key: value.to(base.device) for key, value in rows.collate(range(len(gold))).items()}
    return float(rows.loss(module.eval(), batch)[0]) / len(gold)


def trains(name: str) -> bool:
    """Whether a method is trained by gradients."""
    return issubclass(methods()[name], Attached)


def adapter(tuned: pegbox.Tuned) -> dict[str, Tensor]:
    """The parameters of a LoRA and of a head on it."""
    assert tuned.module is not None
    return {n: p for n, p in tuned.module.named_parameters() if "lora_" in n or "score" in n}


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference of any parameter."""
    assert first.keys() == second.keys()
    assert first
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def whole_model(family: str, place: str) -> Any:
    """A copy of a base's model, all of it trained."""
    return copy.deepcopy(base_on(family, "float32", place).model).requires_grad_(True)


TAGS = Tag(types=("LOC", "PER"))
PEOPLE = (("B-PER", "staff"), ("O", "said"), ("O", "yes"), ("O", "to"), ("B-LOC", "hotel"), ("O", "tea"))


def sentences_of(count: int = 8) -> Sentences:
    """Sentences whose words tell their tags."""
    rows = [[PEOPLE[(at + index) % len(PEOPLE)] for at in range(3 + index % 4)] for index in range(count)]
    words = tuple(tuple(word for _, word in row) for row in rows)
    tags = tuple(tuple(tag for tag, _ in row) for row in rows)
    return Sentences("toy sentences", words, tags, tuple(range(1, count + 1)))


def reviews_of(count: int, seed: int) -> Examples:
    """Hotel reviews of the embedded world, which its models have not read."""
    from pegbox.models.etude.world import reviews

    found = reviews("hotels", count, seed=seed)
    texts, labels = tuple(row.text for row in found), tuple(row.label for row in found)
    return Examples(f"hotel reviews, seed {seed}", {"text": texts}, labels, tuple(range(1, count + 1)))


REVIEWS = pegbox.Classify(
    labels=("negative", "positive"), template="{text} It was {answer}.", label_words=("terrible", "great")
)


def no_tensor_elsewhere(module: torch.nn.Module) -> list[str]:
    """Names of parameters and buffers that are not on the place."""
    every = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in every if tensor.device.type != PLACE]
