"""Zero-shot: the base answers, nothing is turned."""

from dataclasses import dataclass
from typing import ClassVar

from pegbox.methods._method import NO_WORDS, Capability, Problem, Solved, Solver
from pegbox.methods._registry import register


@register
@dataclass(frozen=True)
class ZeroShot(Solver):
    """The base's probability of each label word at the answer slot."""

    name: ClassVar[str] = "zero-shot"
    seeded: ClassVar[bool] = False
    capability: ClassVar[Capability] = Capability(
        summary="nothing; the template asks the base",
        kinds=("causal", "masked", "encoder-decoder"),
        refusals={"encoder": NO_WORDS},
        trains=False,
        mergeable=False,
        quantised=True,
        inference="none",
        parameters="0",
        source="Radford et al. 2019; Schick & Schuetze 2021",
    )

    def solve(self, problem: Problem) -> Solved:
        """Return the prompt as it is."""
        return Solved(problem.prompt)
