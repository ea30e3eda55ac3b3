"""Ways to be as sure as one is right: how each makes ready, and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pegbox.data import Rows
from pegbox.errors import CapabilityError
from pegbox.methods import Attached
from pegbox.models import in_mode
from pegbox.tuning._answers import Array
from pegbox.tuning._training import EPOCHS, Training
from pegbox.uncertainty import GRADES, fit_temperature

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

WAYS = ("map", "temperature", "dropout", "ensemble", *GRADES)
Answer = Callable[[Rows], Array]


@dataclass(frozen=True, eq=False)
class Ways:
    """The ways, over one tuned model.

    Args:
        tuned: The model as it was tuned.
        own: Rows that it was tuned on.
        valid: Held-out rows, that temperature, precision and the stopping of members are chosen on.
        members: Models of the ensemble.
        passes: Passes with dropout.
        training: How further members are trained; by default settings when ``None``.
        seed: Of dropout; those of the further members follow it.
    """

    tuned: Tuned
    own: Rows
    valid: Rows | None
    members: int
    passes: int
    training: Training | None
    seed: int

    def ready(self, name: str) -> tuple[Answer, str]:
        """What answers rows in this way, and what it chose."""
        if name == "map":
            return self.tuned.probabilities, ""
        if name == "temperature":
            return self._temperature()
        if name == "dropout":
            return self._dropout()
        if name == "ensemble":
            return self._ensemble()
        return self._laplace(name)

    def _temperature(self) -> tuple[Answer, str]:
        held = self._held("temperature")
        gold = torch.tensor(self.tuned.prompt.task.gold(held))  # type: ignore[arg-type]
        found = fit_temperature(self.tuned.logits(held), gold)

        def answer(rows: Rows) -> Array:
            return found.probabilities(self.tuned.logits(rows)).numpy()

        return answer, f"temperature {found.value:.3g}"

    def _held(self, name: str) -> Rows:
        if self.valid is None or not len(self.valid):
            raise CapabilityError(
                f"{name} is chosen on held-out rows, and there are none",
                expected="rows that the model was not tuned on",
                fix="name a file of them with valid",
            )
        return self.valid

    def _dropout(self) -> tuple[Answer, str]:
        module = self.tuned.module
        if module is None or self.tuned.method.capability.output_only:
            raise CapabilityError("what was tuned sees frozen features, which no dropout changes")
        if not any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules()):
            raise CapabilityError("this model has no dropout; tune with --options.dropout 0.1")

        def answer(rows: Rows) -> Array:
            return np.mean([self._dropped(module, rows, number) for number in range(self.passes)], axis=0)

        return answer, f"{self.passes} passes"

    def _dropped(self, module: nn.Module, rows: Rows, number: int) -> Array:
        places = [self.tuned.base.device] if self.tuned.base.device.type == "cuda" else []
        with in_mode(module, training=True), torch.random.fork_rng(places):
            torch.manual_seed(self.seed * 1_000_003 + number)
            return self.tuned.probabilities(rows)

    def _ensemble(self) -> tuple[Answer, str]:
        from pegbox.tuning._fit import fit

        tuned = self.tuned
        if not isinstance(tuned.method, Attached):
            raise CapabilityError(f"{tuned.method.name} finds the same under every seed")
        if peculiar := tuned.details.get("of_its_own"):
            raise CapabilityError(
                f"the adapter came from elsewhere with {', '.join(peculiar)}, which further members lack"
            )
        task: Any = tuned.prompt.task
        if self.training is None:
            tuned.say(_default_training(tuned))
        models = [tuned]
        for seed in self._seeds():
            tuned.say(f"ensemble: member {len(models) + 1} of {self.members}, seed {seed}")
            models.append(
                fit(
                    tuned.base.whole or tuned.base,
                    task,
                    tuned.method,
                    rows=self.own,
                    valid=self.valid,
                    training=self.training or Training(),
                    seed=seed,
                    too_long=tuned.too_long,
                    cache=tuned.cache,
                    say=tuned.say,
                )
            )

        def answer(rows: Rows) -> Array:
            return np.mean([model.probabilities(rows) for model in models], axis=0)

        return answer, f"{self.members} models"

    def _seeds(self) -> list[int]:
        """Those of the further members: not the one that this model was fitted with, which gives it again."""
        own = self.tuned.details.get("seed")
        return list(islice((seed for seed in count(self.seed + 1) if seed != own), self.members - 1))

    def _laplace(self, name: str) -> tuple[Answer, str]:
        if self.tuned.posterior is not None:
            if name != "exact":
                raise CapabilityError("a closed-form fit has its exact posterior, and no other")
            sure = self.tuned.with_posterior()
            return sure.probabilities, "its own posterior"
        sure = self.tuned.with_posterior(self.own, curvature=name, valid=self.valid, seed=self.seed)
        assert sure.laplace is not None
        return sure.probabilities, f"precision {sure.laplace.precision:.3g} by {sure.laplace.chosen}"


def _default_training(tuned: Tuned) -> str:
    """That further members train by default settings, with what is known to have been otherwise here."""
    history, default = tuned.details.get("history", {}), Training()
    epochs = float(tuned.method.capability.defaults.get("epochs", EPOCHS))
    ran, rows = history.get("epochs"), history.get("rows_at_once")
    found = []
    if ran is not None and (ran > epochs or (ran < epochs and not history.get("stopped_early"))):
        found.append(f"{ran:.3g} epochs instead of {epochs:.3g}")
    if rows is not None and rows > default.batch_size:
        found.append(f"batches of {rows} rows instead of {default.batch_size}")
    if "replay" in tuned.details:
        found.append("with replay, which they do without")
    told = "whether this model was trained otherwise is not known"
    if found:
        told = f"this model was trained otherwise: {', '.join(found)}"
    return f"ensemble: further members are trained with the default settings unless training is given; {told}"
