from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pegbox.errors import UsageError, check_names, is_number, is_whole

Algorithm = Literal["ppo", "rloo"]


def _counted(value: object) -> bool:
    return is_whole(value, 1)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "algorithm": (lambda v: v in ("ppo", "rloo"), "ppo or rloo"),
    "steps": (_counted, "a whole number from 1"),
    "batch_size": (_counted, "a whole number from 1"),
    "minibatch_size": (_counted, "a whole number from 1"),
    "draws": (lambda v: is_whole(v, 2), "a whole number from 2"),
    "epochs": (_counted, "a whole number from 1"),
    "learning_rate": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "value_learning_rate": (lambda v: v is None or (is_number(v) and v > 0), "a number above 0, or nothing"),
    "beta": (lambda v: is_number(v) and v >= 0, "a number from 0"),
    "target_kl": (lambda v: v is None or (is_number(v) and v > 0), "a number above 0, or nothing"),
    "kl_horizon": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "gamma": (lambda v: is_number(v) and 0 < v <= 1, "above 0, at most 1"),
    "lam": (lambda v: is_number(v) and 0 <= v <= 1, "from 0 to 1"),
    "clip": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "value_clip": (lambda v: v is None or (is_number(v) and v > 0), "a number above 0, or nothing"),
    "whiten": (lambda v: isinstance(v, bool), "true or false"),
    "max_tokens": (_counted, "a whole number from 1"),
    "missing_end_penalty": (lambda v: is_number(v) and v >= 0, "a number from 0"),
    "gradient_clip": (lambda v: is_number(v) and v >= 0, "a number from 0 (0 = no clipping)"),
    "precision": (lambda v: v in ("auto", "bf16", "float32"), "auto, bf16 or float32"),
    "checkpoint_every": (_counted, "a whole number from 1"),
    "evaluate_every": (_counted, "a whole number from 1"),
    "held_draws": (_counted, "a whole number from 1"),
    "seed": (lambda v: is_whole(v, 0), "a whole number from 0"),
}


_OF_PPO = ("gamma", "lam", "value_clip", "value_learning_rate", "whiten")


@dataclass(frozen=True)
class Alignment:
    """How a policy is trained by reinforcement learning.

    Args:
        algorithm: ``ppo`` (Schulman et al. 2017), or ``rloo`` (Ahmadian et al. 2024), which needs no value
            model.
        steps: Batches of answers.
        batch_size: Answers of one batch, over all processes.
        minibatch_size: Answers of one optimiser step, over all processes.
        draws: For ``rloo``, answers of each prompt.
        epochs: Passes over each batch.
        learning_rate: Of the policy at the start; it falls linearly to a tenth.
        value_learning_rate: Of the value model; that of the policy where it is nothing.
        beta: Weight of the divergence from the reference, in standard deviations of the reward per nat.
        target_kl: Divergence per answer in nats that beta is adapted to hold; nothing keeps beta.
        kl_horizon: Answers over which an error of the divergence is made up.
        gamma: Discount.
        lam: Decay of generalised advantage estimates.
        clip: Largest change of a probability ratio that still pays.
        value_clip: Largest change of a value that is not punished; nothing for any.
        whiten: Whether advantages get mean 0 and standard deviation 1.
        max_tokens: Most tokens of an answer.
        missing_end_penalty: Standard deviations of reward that an answer without an end loses.
        gradient_clip: Largest norm of each model's gradient; 0 for none.
        precision: As in :class:`pegbox.training.Settings`.
        checkpoint_every: Steps between checkpoints.
        evaluate_every: Steps between win rates on held-out prompts.
        held_draws: Answers to each held-out prompt then; more tell smaller changes where prompts are few.
        seed: Of prompts, answers and orders.
        free: Allow ``beta`` 0, which nothing holds to the reference.

    Raises:
        UsageError: For values that cannot be.
    """

    algorithm: Algorithm = "ppo"
    steps: int = 100
    batch_size: int = 64
    minibatch_size: int = 16
    draws: int = 4
    epochs: int = 2
    learning_rate: float = 3e-4
    value_learning_rate: float | None = None
    beta: float = 0.1
    target_kl: float | None = None
    kl_horizon: float = 10_000.0
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    whiten: bool = True
    max_tokens: int = 64
    missing_end_penalty: float = 1.0
    gradient_clip: float = 1.0
    precision: Literal["auto", "bf16", "float32"] = "float32"
    checkpoint_every: int = 10
    evaluate_every: int = 10
    held_draws: int = 1
    seed: int = 0
    free: bool = False

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise UsageError(
                "invalid settings of reinforcement learning: " + "; ".join(faults),
                where="rl",
                fix="correct or leave out each that is named; what is left out has its default",
            )
        if self.beta == 0 and not self.free:
            raise UsageError(
                "with beta 0 nothing holds the policy to the model it comes from",
                where="rl.beta 0",
                expected="a weight above 0, such as 0.1",
                fix="leave beta out, or set free to true as well where that is meant (--rl.free true)",
            )

    def _faults(self) -> Iterator[str]:
        for key, (valid, expected) in _RULES.items():
            value = getattr(self, key)
            if not valid(value):
                yield f"{key} is {value!r}, expected {expected}"
        idle = _OF_PPO if self.algorithm == "rloo" else ("draws",)
        defaults = {one.name: one.default for one in fields(self)}
        for key in idle:
            if getattr(self, key) != defaults[key]:
                yield f"{key} is {getattr(self, key)!r}, and {self.algorithm} has no use for it"
        counted = is_whole(self.draws, 2) and is_whole(self.batch_size, 1)
        if self.algorithm == "rloo" and counted and self.batch_size % self.draws:
            yield f"batch_size is {self.batch_size}, expected a multiple of draws ({self.draws})"

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Alignment:
        """Settings of some named values.

        Raises:
            UsageError: For a name that is none, or a wrong value.
        """
        known = [one.name for one in fields(cls)]
        check_names(values or {}, known, "there is no setting {!r} of reinforcement learning", where="rl.{}")
        return cls(**(values or {}))

    @property
    def prompts_per_step(self) -> int:
        """Different prompts of one batch."""
        return self.batch_size // (self.draws if self.algorithm == "rloo" else 1)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)

    def repeated(self) -> dict[str, Any]:
        """What a resumed run must have alike: all but how often checkpoints are written."""
        return {name: value for name, value in self.to_json().items() if name != "checkpoint_every"}
