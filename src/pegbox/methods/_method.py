from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from pegbox.data import Examples
from pegbox.errors import CapabilityError
from pegbox.models import Base, FeatureCache, Features, extract
from pegbox.tasks import Encoded, Kind, Prompt

if TYPE_CHECKING:
    from pegbox.methods._least_squares import Posterior
    from pegbox.models import Quantise

NO_WORDS = "use closed-form or lora, which fit a head on the encoder's features"


@dataclass(frozen=True)
class Capability:
    """One row of the table that says where a method works; docs, errors and tests are made from it.

    Args:
        summary: What is turned, in a few words.
        kinds: Kinds of models it works on.
        trains: Whether the training engine runs it (else it is solved without gradients).
        mergeable: Whether its result can be folded into the base's weights.
        quantised: Whether the base may be quantised.
        inference: What it adds to the cost of a prediction.
        parameters: Formula of the number of tuned parameters (d width, K labels, r rank).
        source: Paper.
        refusals: For each kind that it does not work on, what to use instead.
        learning_rate: Default peak learning rate of a trained method.
        token_rate: That of a new head on every token, where it needs another than all else.
        defaults: Its other training defaults: any of epochs, warmup, schedule and weight_decay.
        output_only: Whether it changes nothing before the output layer, so that cached features serve it.
        starts_at_base: Whether the answers before the first training step equal the base's.
        architectures: Model types (``config.model_type``) that the conformance table runs it on.
        holes: For each model type that it cannot work on, the reason.
        needs_head: Whether it answers by a linear head instead of label words.
    """

    summary: str
    kinds: tuple[Kind, ...]
    trains: bool
    mergeable: bool
    quantised: bool
    inference: str
    parameters: str
    source: str
    refusals: Mapping[Kind, str] = field(default_factory=dict)
    learning_rate: float | None = None
    token_rate: float | None = None
    defaults: Mapping[str, float | str] = field(default_factory=dict)
    output_only: bool = False
    starts_at_base: bool = True
    architectures: tuple[str, ...] = ()
    holes: Mapping[str, str] = field(default_factory=dict)
    needs_head: bool = False


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a method may look at.

    Args:
        base: The base.
        prompt: The task, made ready for the base.
        rows: Labelled training rows.
        gold: Label indices (rows,).
        encoded: The rows as token ids.
        seed: Seed of all randomness.
        cache: Feature cache.
        say: Receives lines for the user.
    """

    base: Base
    prompt: Prompt
    rows: Examples
    gold: Tensor
    encoded: Encoded
    seed: int
    cache: FeatureCache | None
    say: Callable[[str], None]

    @cached_property
    def features(self) -> Features:
        """Hidden states and base logits of the training rows."""
        return extract(self.base, self.prompt, self.encoded, cache=self.cache, say=self.say)

    def part(self, indices: Sequence[int]) -> Problem:
        """The same problem with the rows at these positions only."""
        coded = self.encoded
        types = None if coded.types is None else tuple(coded.types[index] for index in indices)
        return replace(
            self,
            rows=self.rows.select(indices),
            gold=self.gold[list(indices)],
            encoded=replace(
                coded,
                ids=tuple(coded.ids[index] for index in indices),
                positions=tuple(coded.positions[index] for index in indices),
                types=types,
                shortened=(),
            ),
        )


@dataclass(frozen=True, eq=False)
class Solved:
    """What a method without gradients found.

    Args:
        prompt: The prompt to use, perhaps with demonstrations.
        module: The base with an adapter on it; ``None`` when the base itself answers.
        posterior: Posterior of the solution, where there is one.
        parameters: How many numbers were set.
        details: What was chosen and measured, JSON-able.
        features: Hidden states of the rows solved, (rows, width), where the method held them all.
        grow: Takes a problem of further rows and returns the solution for all rows so far; ``None`` where a
            method cannot.
    """

    prompt: Prompt
    module: nn.Module | None = None
    posterior: Posterior | None = None
    parameters: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    features: Tensor | None = None
    grow: Callable[[Problem], Solved] | None = None


@dataclass(frozen=True)
class Method:
    """What is turned: a frozen dataclass of hyperparameters with a name and a capability row.

    ``quantise`` is set by a method whose base must be kept in so many bits, and ``seeded`` is cleared by one
    that finds the same under every seed.
    """

    name: ClassVar[str]
    capability: ClassVar[Capability]
    quantise: ClassVar[Quantise | None] = None
    seeded: ClassVar[bool] = True

    def options(self) -> dict[str, Any]:
        """The hyperparameters as a JSON-able mapping."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def check(self, base: Base) -> None:
        """Raise CapabilityError when this method cannot work on this base."""
        if base.kind not in self.capability.kinds:
            *most, last = self.capability.kinds
            named = {
                "encoder": "an encoder without an output layer",
                "encoder-decoder": "an encoder-decoder model",
            }
            raise CapabilityError(
                f"{self.name} cannot work on {named.get(base.kind, f'a {base.kind} model')}",
                where=base.name,
                expected=f"a {' or '.join(filter(None, (', '.join(most), last)))} model",
                fix=self.capability.refusals.get(base.kind, "see pegbox methods"),
            )
        family = getattr(base.model.config, "model_type", "")
        if family in self.capability.holes:
            raise CapabilityError(
                f"{self.name} cannot work on {family} models: {self.capability.holes[family]}",
                where=base.name,
                fix="see pegbox methods",
            )

        self._check_bits(base)

    def _check_bits(self, base: Base) -> None:
        if base.quantise and not self.capability.quantised:
            raise CapabilityError(
                f"{self.name} cannot work on a base in 4 bits",
                where=base.name,
                expected="a base in float32 or bfloat16",
                fix="load it without quantise, or use qlora",
            )
        if self.quantise and base.quantise != self.quantise:
            raise CapabilityError(
                f"{self.name} needs a base in 4 bits, and this one is loaded in {base.dtype}",
                where=base.name,
                expected=f"a base that was loaded with quantise {self.quantise}",
                fix=f'pegbox.load("{base.name}", quantise="{self.quantise}"), or give fit the name alone',
            )

    def prompt(self, base: Base, prompt: Prompt) -> Prompt:  # noqa: ARG002
        """The prompt with what this method itself puts into it, such as soft tokens; by default nothing."""
        return prompt

    def load_posterior(self, folder: Path) -> Posterior | None:  # noqa: ARG002
        """Read the posterior that lies in a saved folder, for methods that write one."""
        return None


@dataclass(frozen=True)
class Solver(Method):
    """A method that needs no gradients."""

    def solve(self, problem: Problem) -> Solved:
        """Find the answer for the problem's rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class Attached(Method):
    """A method that attaches parameters, which the training engine then trains.

    ``whole`` is set by a method that trains weights of its own instead of an adapter on the base's.
    """

    whole: ClassVar[bool] = False

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Return the base's module with new trainable parameters.

        Its answers still equal the base's, unless the capability row says that it does not start there.
        """
        raise NotImplementedError

    def trained(self, base: Base, module: nn.Module) -> nn.Module:  # noqa: ARG002
        """The module as it is kept after training; by default as it is."""
        return module

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """How many parameters :meth:`attach` trains, by the table's formula from the base's shapes."""
        raise NotImplementedError
