"""Closed form: least squares on the label logits of a frozen base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, InputError
from pegbox.methods._checks import check_options, number
from pegbox.methods._least_squares import (
    Choice,
    Posterior,
    Solution,
    Spectrum,
    choose,
    choose_newton,
    newton,
    solve,
    whole_vocabulary,
)
from pegbox.methods._method import Capability, Problem, Solved, Solver
from pegbox.methods._peft import wrap
from pegbox.methods._registry import register
from pegbox.models import Base, answer_tokens, check_safetensors, output_layer, output_rows, output_scale
from pegbox.tasks import Prompt

POSTERIOR = "posterior.safetensors"


@register
@dataclass(frozen=True)
class ClosedForm(Solver):
    """Linear correction W of the label logits, softmax(zA + zW + b), without gradient steps.

    Args:
        loss: ``squared`` (Moore-Penrose on the smoothed log targets) or ``log`` (Newton to the optimum of the
            multinomial logistic loss with the base's logits as offset).
        penalty: Ridge penalty; ``None`` chooses it by leave-one-out log-loss.
        smoothing: Probability that a label is another one, for the squared loss; ``None`` chooses it likewise.
        intercept: Whether an unpenalised intercept per label is fitted.
        vocabulary: Fit all tokens of the vocabulary instead of the K label words.
    """

    loss: Literal["squared", "log"] = "squared"
    penalty: float | None = None
    smoothing: float | None = None
    intercept: bool = True
    vocabulary: bool = False

    name: ClassVar[str] = "closed-form"
    capability: ClassVar[Capability] = Capability(
        summary="the label rows of the output matrix",
        kinds=("causal", "masked", "encoder"),
        trains=False,
        mergeable=False,
        quantised=True,
        inference="one product of rank K at the output layer",
        parameters="K (d + 1); d (d + V) + V for the whole vocabulary",
        output_only=True,
        source="Penrose 1955; Hoerl & Kennard 1970; Allen 1974",
    )

    def __post_init__(self) -> None:
        above_zero = "a number above 0, or nothing to choose it by leave-one-out"
        check_options(
            self.name,
            [
                ("loss", self.loss, ("squared", "log").__contains__, "squared or log"),
                ("penalty", self.penalty, lambda v: v is None or (number(v) and v > 0), above_zero),
                (
                    "smoothing",
                    self.smoothing,
                    lambda v: v is None or (number(v) and 0 < v < 1),
                    "a number between 0 and 1, or nothing to choose it by leave-one-out",
                ),
                (
                    "vocabulary",
                    self.vocabulary,
                    lambda v: not v or self.loss == "squared",
                    "only with the squared loss",
                ),
            ],
        )

    def check(self, base: Base) -> None:
        """As every method; the whole vocabulary needs an output layer that has one."""
        super().check(base)
        if self.vocabulary and base.kind == "encoder":
            raise CapabilityError(
                f"{base.name} has no output layer and so no vocabulary to fit",
                where="closed-form, vocabulary",
                expected="a causal or masked model",
                fix="leave vocabulary off",
            )

    def solve(self, problem: Problem) -> Solved:
        """Choose what is not given by leave-one-out, solve, and write the solution as a LoRA adapter."""
        base, prompt = problem.base, problem.prompt
        scale = output_scale(base.module(len(prompt.task.labels)))
        features = problem.features.hidden.double() * scale
        logits = _base_logits(problem) * scale
        spectrum = Spectrum.of(features, self.intercept)
        choice = self._choose(features, logits, problem.gold, spectrum)
        if self.vocabulary:
            return self._solve_vocabulary(problem, features, choice, spectrum, scale)
        if self.loss == "log":
            solution = newton(
                features, logits, problem.gold, penalty=choice.penalty, intercept=self.intercept, spectrum=spectrum
            )
        else:
            solution = solve(
                features,
                logits,
                problem.gold,
                penalty=choice.penalty,
                smoothing=choice.smoothing,
                intercept=self.intercept,
                spectrum=spectrum,
            )
        if solution.warning:
            problem.say(solution.warning)
        module = attach_solution(base, prompt, solution.weight, solution.intercept / scale, answer_tokens(prompt))
        posterior = self._posterior(problem, solution, features, logits, spectrum)
        numbers = solution.weight.numel() + solution.intercept.numel() * self.intercept
        return Solved(prompt, module, posterior, numbers, _details(choice, solution, posterior))

    def load_posterior(self, folder: Path) -> Posterior | None:
        """Read ``posterior.safetensors`` if the folder has one."""
        from safetensors.torch import load_file

        path = folder / POSTERIOR
        if not path.is_file():
            return None
        check_safetensors(path)
        tensors = load_file(path)
        if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise InputError("the posterior is not finite", where=str(path), fix="fit the closed form again")
        return Posterior.from_tensors(tensors)

    def _choose(self, Z: Tensor, L: Tensor, gold: Tensor, spectrum: Spectrum) -> Choice:
        penalties = None if self.penalty is None else [self.penalty]
        if self.loss == "log":
            return choose_newton(Z, L, gold, penalties=penalties, intercept=self.intercept, spectrum=spectrum)
        smoothings = None if self.smoothing is None else [self.smoothing]
        return choose(
            Z, L, gold, penalties=penalties, smoothings=smoothings, intercept=self.intercept, spectrum=spectrum
        )

    def _posterior(
        self, problem: Problem, solution: Solution, Z: Tensor, L: Tensor, spectrum: Spectrum
    ) -> Posterior | None:
        try:
            return Posterior.of(solution, Z, L, problem.gold, intercept=self.intercept, spectrum=spectrum)
        except CapabilityError as error:
            problem.say(f"no posterior: {error.what}")
            return None

    def _solve_vocabulary(
        self, problem: Problem, features: Tensor, choice: Choice, spectrum: Spectrum, scale: float
    ) -> Solved:
        base, prompt = problem.base, problem.prompt
        size = base.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        hidden, tokens = problem.features.hidden, torch.tensor(answer_tokens(prompt))
        solution = whole_vocabulary(
            features,
            lambda start, stop: output_rows(base, hidden, range(start, stop)).double() * scale,
            tokens[problem.gold],
            size,
            penalty=choice.penalty,
            smoothing=choice.smoothing,
            intercept=self.intercept,
            spectrum=spectrum,
        )
        weight = solution.weight()
        module = attach_solution(base, prompt, weight, solution.intercept / scale, range(size))
        numbers = weight.numel() + solution.intercept.numel() * self.intercept
        return Solved(prompt, module, None, numbers, _details(choice, None, None) | {"vocabulary": size})


def attach_solution(
    base: Base, prompt: Prompt, weight: Tensor, intercept: Tensor, tokens: tuple[int, ...] | range
) -> nn.Module:
    """Put W (width, outputs) and b (outputs,) on the base as LoRA of the output layer, scaling 1.

    For K labels A = W' (K, width) and B has one-hot rows at the label tokens; for more outputs than the width is
    A the identity and B = W'.
    """
    from peft import LoraConfig

    module = base.module(len(prompt.task.labels))
    name, layer = output_layer(module)
    width, outputs = weight.shape
    rank = min(width, outputs)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[name],
        lora_bias=bool(intercept.any()),
        init_lora_weights=False,
        task_type="CAUSAL_LM" if base.kind == "causal" else None,
    )
    peft = wrap(base, module, config)
    adapted: Any = peft.get_submodule(f"base_model.model.{name}")
    down, up = adapted.lora_A["default"], adapted.lora_B["default"]
    index = torch.tensor(list(tokens), device=up.weight.device)
    with torch.no_grad():
        up.weight.zero_()
        if rank == outputs:
            down.weight.copy_(weight.T)
            up.weight[index, torch.arange(rank, device=index.device)] = 1.0
        else:
            down.weight.copy_(torch.eye(width))
            up.weight[index] = weight.T.to(up.weight)
        if up.bias is not None:
            up.bias.zero_()
            up.bias[index] = intercept.to(up.bias)
    return peft.requires_grad_(False).eval()


def _base_logits(problem: Problem) -> Tensor:
    """Logits of the label words before scale and soft-capping, where the correction is added."""
    if problem.base.kind == "encoder":
        return problem.features.logits.double()
    return output_rows(problem.base, problem.features.hidden, answer_tokens(problem.prompt)).double()


def _details(choice: Choice, solution: Solution | None, posterior: Posterior | None) -> dict[str, Any]:
    details: dict[str, Any] = {
        "penalty": choice.penalty,
        "smoothing": choice.smoothing,
        "criterion": choice.criterion,
        "left_out_loss": choice.loss,
        "left_out_accuracy": choice.accuracy,
        "at_edge_of_grid": list(choice.edges),
    }
    if solution is not None:
        details |= {
            "system": solution.system,
            "condition": solution.condition,
            "gradient_norm": solution.gradient_norm,
        }
    if posterior is not None:
        details |= {"log_evidence": posterior.evidence, "noise_variance": posterior.noise}
    return details
