"""Few-shot: solved rows stand before the question, nothing is turned."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pegbox.errors import CapabilityError
from pegbox.methods._checks import check_options, positive_int
from pegbox.methods._method import NO_WORDS, Capability, Problem, Solved, Solver
from pegbox.methods._registry import register
from pegbox.tasks import Prompt, demonstration, random_draws


@register
@dataclass(frozen=True)
class FewShot(Solver):
    """Zero-shot after demonstrations: random ones, the same for all rows, or each row's most similar.

    Args:
        per_class: Demonstrations of each label.
        selection: ``random`` (one shared key-value cache serves all rows) or ``similar`` (largest cosine of
            features).
        draws: Random draws; each is shown on its own, and the probabilities are averaged (Gao et al. 2021).
    """

    per_class: int = 4
    selection: Literal["random", "similar"] = "random"
    draws: int = 1

    name: ClassVar[str] = "few-shot"
    capability: ClassVar[Capability] = Capability(
        summary="nothing; solved rows stand before the question",
        kinds=("causal", "masked", "encoder-decoder"),
        refusals={"encoder": NO_WORDS},
        trains=False,
        mergeable=False,
        quantised=True,
        inference="the demonstrations' tokens (shared cache for random ones on causal models), once per draw",
        parameters="0",
        source="Brown et al. 2020; Liu et al. 2022 (similar); Gao et al. 2021 (draws)",
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("per_class", self.per_class, positive_int, "a whole number of at least 1"),
                ("selection", self.selection, ("random", "similar").__contains__, "random or similar"),
                (
                    "draws",
                    self.draws,
                    lambda v: positive_int(v) and (v == 1 or self.selection == "random"),
                    "a whole number of at least 1, and 1 with the most similar ones",
                ),
            ],
        )

    def solve(self, problem: Problem) -> Solved:
        """Choose the demonstrations; fewer per class when the context does not hold them."""
        if self.selection == "similar":
            pool = [demonstration(problem.rows, index) for index in range(len(problem.rows))]
            prompt = problem.prompt.with_pool(pool, self.per_class)
            return Solved(prompt, details={"pool": len(problem.rows), "per_class": self.per_class})
        for count in range(self.per_class, 0, -1):
            labels = problem.prompt.task.labels
            shown = random_draws(problem.rows, labels, count, self.draws, seed=problem.seed)
            prompt = problem.prompt.with_draws(shown)
            if all(_fits(draw, problem.encoded.lengths) for draw in prompt.draws):
                if count < self.per_class:
                    problem.say(
                        f"{count} instead of {self.per_class} demonstrations per class: "
                        f"the context holds {prompt.context} tokens"
                    )
                return Solved(prompt, details={"demonstrations": len(shown[0]), "per_class": count})
        return self._shortest(problem)

    def _shortest(self, problem: Problem) -> Solved:
        """The shortest row of each class, where no row drawn at random fits."""
        lengths, labels = problem.encoded.lengths, problem.rows.labels or ()
        shown = [
            demonstration(
                problem.rows, min((i for i, of in enumerate(labels) if of == label), key=lengths.__getitem__)
            )
            for label in problem.prompt.task.labels
        ]
        prompt = problem.prompt.with_demonstrations(shown)
        if not _fits(prompt, lengths):
            raise CapabilityError(
                "one demonstration per class does not fit into the context",
                where=f"{problem.base.name}, context {prompt.context} tokens",
                expected="room for the demonstrations and half a context for the question",
                fix="use zero-shot, or a model with a longer context",
            )
        problem.say(f"the shortest row of each class is shown: the context holds {prompt.context} tokens")
        return Solved(prompt, details={"demonstrations": len(shown), "per_class": 1})


def _fits(prompt: Prompt, lengths: list[int]) -> bool:
    """Whether the demonstrations leave room for the longest question, or for half a context."""
    room = prompt.context - len(prompt.demonstration_ids())
    return room >= min(max(lengths, default=0), prompt.context // 2)
