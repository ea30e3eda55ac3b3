import json
from dataclasses import replace

import pytest

from pegbox.errors import UsageError
from pegbox.methods import LoRA
from pegbox.methods._registry import methods
from pegbox.training import Settings
from pegbox.tuning import Training


def test_all_faults_are_told_at_once_with_their_keys() -> None:
    with pytest.raises(UsageError) as caught:
        Settings(learning_rate=-1, batch_size=0, warmup=1.5, schedule="cosin", checkpoint_every="hour")
    message = str(caught.value)
    for key in ("learning_rate", "batch_size", "warmup", "schedule", "checkpoint_every"):
        assert key in message
    assert "linear, cosine or constant" in message
    assert "patience" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", float("nan")),
        ("learning_rate", True),
        ("learning_rate", "1e-3"),
        ("epochs", 0),
        ("epochs", float("inf")),
        ("batch_size", 1.5),
        ("accumulation", 0),
        ("warmup", 1),
        ("weight_decay", -0.1),
        ("gradient_clip", -1),
        ("precision", "fp16"),
        ("patience", -1),
        ("evaluations_per_epoch", 0),
        ("checkpoint_every", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("max_steps", 0),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.5),
        ("adam_epsilon", 0),
        ("gradient_checkpointing", 1),
        ("divergence", 0.5),
        ("balance", "class"),
        ("report_to", None),
        ("device", "cuda:3"),
    ],
)
def test_each_key_is_checked(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^invalid training settings: {key} is .*, expected "):
        Settings(**({"learning_rate": 1e-3} | {key: value}))


def test_total_steps() -> None:
    assert Settings(learning_rate=1e-3, epochs=3).total_steps(7) == 21
    assert Settings(learning_rate=1e-3, epochs=0.5).total_steps(7) == 4
    assert Settings(learning_rate=1e-3, epochs=3, max_steps=10).total_steps(7) == 10
    assert Settings(learning_rate=1e-3, epochs=1, max_steps=10).total_steps(7) == 7


def test_settings_round_trip_through_json() -> None:
    settings = Settings(learning_rate=3e-4, epochs=2, checkpoint_every=50, max_steps=9)
    assert Settings(**json.loads(json.dumps(settings.to_json()))) == settings


class Slow(LoRA):
    """LoRA with training defaults of its own."""

    capability = replace(
        LoRA.capability,
        learning_rate=0.3,
        defaults={"epochs": 20, "warmup": 0.2, "schedule": "constant", "weight_decay": 0.01},
    )


def test_what_training_leaves_open_is_the_methods_default() -> None:
    settings = Training().settings(Slow(), 4)
    found = (settings.learning_rate, settings.epochs, settings.warmup, settings.schedule)
    assert (*found, settings.weight_decay, settings.seed) == (0.3, 20, 0.2, "constant", 0.01, 4)
    given = Training(learning_rate=0.1, epochs=2, warmup=0, schedule="cosine", weight_decay=0)
    settings = given.settings(Slow(), 0)
    found = (settings.learning_rate, settings.epochs, settings.warmup, settings.schedule)
    assert (*found, settings.weight_decay) == (0.1, 2, 0, "cosine", 0)


def test_a_method_without_defaults_takes_the_engines() -> None:
    class Plain(LoRA):
        capability = replace(LoRA.capability, defaults={})

    settings, engine = Training().settings(Plain(), 0), Settings(learning_rate=1e-3)
    assert settings.epochs == 8
    for key in ("warmup", "schedule", "weight_decay", "divergence", "balance", "report_to"):
        assert getattr(settings, key) == getattr(engine, key)


def test_the_defaults_of_every_method_are_settings_that_training_leaves_open() -> None:
    trained = [kind for kind in methods().values() if kind.capability.trains]
    assert len(trained) >= 5
    for kind in trained:
        assert kind.capability.defaults.keys() <= {"epochs", "warmup", "schedule", "weight_decay"}
        Settings(learning_rate=kind.capability.learning_rate, **kind.capability.defaults)
