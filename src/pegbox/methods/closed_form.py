"""Closed form: least squares on the label logits of a frozen base."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from pegbox.errors import CapabilityError, InputError
from pegbox.methods._checks import boolean, check_options, number
from pegbox.methods._growing import Growing
from pegbox.methods._least_squares import (
    Choice,
    Posterior,
    Solution,
    Spectrum,
    choose_newton,
    choose_penalty,
    newton,
    solve,
    whole_vocabulary,
)
from pegbox.methods._method import Capability, Problem, Solved, Solver
from pegbox.methods._output_layer import Equations, attach_factors, attach_rows, logit_scale
from pegbox.methods._registry import register
from pegbox.methods._streaming import accumulate, gram_posterior, subset
from pegbox.models import Base, answer_tokens, check_safetensors, output_rows

POSTERIOR_FILE = "posterior.safetensors"
STREAM_ROWS = 20_000


@register
@dataclass(frozen=True)
class ClosedForm(Solver):
    """Linear correction W of the label logits, softmax(zA + zW + b), without gradient steps.

    Args:
        loss: ``squared`` (Moore-Penrose on the smoothed log targets) or ``log`` (Newton to the optimum of the
            multinomial logistic loss with the base's logits as offset).
        penalty: Ridge penalty; ``None`` chooses it by leave-one-out log-loss.
        smoothing: Probability that a label is another one, squared loss only; ``None`` chooses it likewise.
        intercept: Whether an unpenalised intercept per label is fitted.
        vocabulary: Fit all tokens of the vocabulary instead of the K label words, squared loss only. Penalty
            and smoothing are those chosen for the label words.
        streaming: Accumulate normal equations block by block, squared loss only: no more than 4,096 rows'
            features exist at a time, every distributed rank reads its share, and what is not given is chosen
            by leave-one-out on a seeded sample of 2,048 rows. ``None`` does so above 20,000 rows.
    """

    loss: Literal["squared", "log"] = "squared"
    penalty: float | None = None
    smoothing: float | None = None
    intercept: bool = True
    vocabulary: bool = False
    streaming: bool | None = None

    name: ClassVar[str] = "closed-form"
    # Streaming alone draws something: the rows by which the penalty is chosen.
    seeded: ClassVar[bool] = False
    capability: ClassVar[Capability] = Capability(
        summary="the label rows of the output matrix",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=False,
        mergeable=True,
        quantised=True,
        inference="one product of rank K at the output layer",
        parameters="K (d + 1); r (d + V) + V for the whole vocabulary, r at most d and N",
        output_only=True,
        source="Penrose 1955; Hoerl & Kennard 1970; Allen 1974",
    )

    def __post_init__(self) -> None:
        plain = self.loss == "squared"
        chosen = "or nothing to choose it by leave-one-out"
        check_options(
            self.name,
            [
                ("loss", self.loss, ("squared", "log").__contains__, "squared or log"),
                (
                    "penalty",
                    self.penalty,
                    lambda v: v is None or (number(v) and v > 0),
                    f"a number above 0, {chosen}",
                ),
                (
                    "smoothing",
                    self.smoothing,
                    lambda v: v is None or (plain and number(v) and 0 < v < 1),
                    f"a number between 0 and 1, {chosen}; only with the squared loss",
                ),
                ("intercept", self.intercept, boolean, "true or false"),
                (
                    "vocabulary",
                    self.vocabulary,
                    lambda v: boolean(v) and (plain or not v),
                    "true or false; true only with the squared loss",
                ),
                (
                    "streaming",
                    self.streaming,
                    lambda v: v is None or (boolean(v) and not (v and (self.vocabulary or not plain))),
                    "true, false or nothing; true only with the squared loss and without vocabulary",
                ),
            ],
        )

    def check(self, base: Base) -> None:
        """As every method; the whole vocabulary needs an output layer that has one."""
        super().check(base)
        if self.vocabulary and base.kind == "encoder":
            raise CapabilityError(
                "closed-form with vocabulary cannot work on an encoder without an output layer",
                where=base.name,
                expected="a causal, masked or encoder-decoder model",
                fix="leave vocabulary off",
            )

    def solve(self, problem: Problem) -> Solved:
        """Choose what is not given by leave-one-out, solve, and write the solution as a LoRA adapter."""
        if self._streams(len(problem.rows)):
            return self._solve_stream(problem)
        rows = Equations.of(problem)
        spectrum = Spectrum.of(rows.features, self.intercept)
        choice = self._choose(rows, spectrum)
        if self.vocabulary:
            return self._solve_vocabulary(problem, rows, choice, spectrum)
        solution = self._solution(rows, choice, spectrum)
        if solution.warning:
            problem.say(solution.warning)
        posterior = self._posterior(problem, solution, rows, spectrum)
        grow = None
        if self.loss == "squared":
            grow = Growing(choice.penalty, choice.smoothing, self.intercept, rows.scale, rows)
        return Solved(
            prompt=problem.prompt,
            module=attach_rows(problem, solution.weight, solution.intercept / rows.scale),
            posterior=posterior,
            parameters=self._numbers(solution),
            details=_chosen(choice)
            | _solved(solution, posterior)
            | {"decomposition": spectrum.decomposition},
            features=problem.features.hidden,
            grow=grow,
        )

    def solution(self, rows: Equations) -> Solution:
        """As :meth:`solve`, of equations alone and without an adapter, for fits to many subsets of rows."""
        spectrum = Spectrum.of(rows.features, self.intercept)
        return self._solution(rows, self._choose(rows, spectrum), spectrum)

    def load_posterior(self, folder: Path) -> Posterior | None:
        """Read ``posterior.safetensors`` if the folder has one."""
        from safetensors.torch import load_file

        path = folder / POSTERIOR_FILE
        if not path.is_file():
            return None
        check_safetensors(path)
        tensors = load_file(path)
        if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise InputError(
                "the posterior holds a value that is not a finite number",
                where=str(path),
                fix="fit the closed form again",
            )
        return Posterior.from_tensors(tensors)

    def _streams(self, rows: int) -> bool:
        if self.streaming is not None:
            return self.streaming
        return rows > STREAM_ROWS and self.loss == "squared" and not self.vocabulary

    def _choose(self, rows: Equations, spectrum: Spectrum) -> Choice:
        Z, L, gold = rows.features, rows.logits, rows.gold
        penalties = None if self.penalty is None else [self.penalty]
        if self.loss == "log":
            return choose_newton(Z, L, gold, penalties=penalties, intercept=self.intercept, spectrum=spectrum)
        smoothings = None if self.smoothing is None else [self.smoothing]
        return choose_penalty(
            Z,
            L,
            gold,
            penalties=penalties,
            smoothings=smoothings,
            intercept=self.intercept,
            spectrum=spectrum,
        )

    def _solution(self, rows: Equations, choice: Choice, spectrum: Spectrum) -> Solution:
        Z, L, gold = rows.features, rows.logits, rows.gold
        penalty, intercept = choice.penalty, self.intercept
        if self.loss == "log":
            return newton(Z, L, gold, penalty=penalty, intercept=intercept, spectrum=spectrum)
        smoothing = choice.smoothing
        return solve(Z, L, gold, penalty=penalty, smoothing=smoothing, intercept=intercept, spectrum=spectrum)

    def _posterior(
        self, problem: Problem, solution: Solution, rows: Equations, spectrum: Spectrum
    ) -> Posterior | None:
        try:
            return Posterior.of(
                solution, rows.features, rows.logits, rows.gold, intercept=self.intercept, spectrum=spectrum
            )
        except CapabilityError as error:
            problem.say(f"no posterior: {error.what}")
            return None

    def _solve_stream(self, problem: Problem) -> Solved:
        scale = logit_scale(problem)
        penalty, smoothing = self.penalty, self.smoothing
        details: dict[str, Any] = {"criterion": "given"}
        if penalty is None or smoothing is None:
            part = subset(problem)
            rows = Equations.of(part, scale)
            choice = self._choose(rows, Spectrum.of(rows.features, self.intercept))
            penalty, smoothing, details = choice.penalty, choice.smoothing, _chosen(choice)
            if len(part.rows) < len(problem.rows):
                details["criterion"] += (
                    f" on {len(part.rows)} of {len(problem.rows)} rows (seed {problem.seed})"
                )
                problem.say(f"penalty {penalty:.3g}, smoothing {smoothing:.3g}: {details['criterion']}")
        gram = accumulate(problem, scale, smoothing=smoothing, intercept=self.intercept)
        solution = gram.solve(penalty)
        if solution.warning:
            problem.say(solution.warning)
        posterior = gram_posterior(gram, solution)
        details |= {"penalty": penalty, "smoothing": smoothing}
        return Solved(
            prompt=problem.prompt,
            module=attach_rows(problem, solution.weight, solution.intercept / scale),
            posterior=posterior,
            parameters=self._numbers(solution),
            details=details | _solved(solution, posterior),
        )

    def _solve_vocabulary(
        self, problem: Problem, rows: Equations, choice: Choice, spectrum: Spectrum
    ) -> Solved:
        base, prompt, hidden = problem.base, problem.prompt, problem.features.hidden
        size = base.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        solution = whole_vocabulary(
            rows.features,
            lambda start, stop: output_rows(base, hidden, range(start, stop)).double() * rows.scale,
            torch.tensor(answer_tokens(prompt))[problem.gold],
            size,
            penalty=choice.penalty,
            smoothing=choice.smoothing,
            intercept=self.intercept,
            spectrum=spectrum,
            dtype=torch.float32,
        )
        down, up, intercept = solution.basis.T, solution.coefficients.T, solution.intercept
        return Solved(
            prompt=prompt,
            module=attach_factors(
                base, len(prompt.task.labels), down, up, intercept / rows.scale, range(size)
            ),
            parameters=down.numel() + up.numel() + intercept.numel() * self.intercept,
            details=_chosen(choice)
            | {"vocabulary": size, "rank": len(down), "decomposition": spectrum.decomposition},
            features=hidden,
        )

    def _numbers(self, solution: Solution) -> int:
        return solution.weight.numel() + solution.intercept.numel() * self.intercept


def _chosen(choice: Choice) -> dict[str, Any]:
    return {
        "penalty": choice.penalty,
        "smoothing": choice.smoothing,
        "criterion": choice.criterion,
        "left_out_loss": choice.loss,
        "left_out_accuracy": choice.accuracy,
        "at_edge_of_grid": list(choice.edges),
    }


def _solved(solution: Solution, posterior: Posterior | None) -> dict[str, Any]:
    details: dict[str, Any] = {
        "system": solution.system,
        "condition": _finite(solution.condition),
        "gradient_norm": _finite(solution.gradient_norm),
    }
    if posterior is not None:
        details |= {"log_evidence": _finite(posterior.evidence), "noise_variance": posterior.noise}
    return details


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
