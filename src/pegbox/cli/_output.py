from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.cli._options import check_free, check_writable, first, say

if TYPE_CHECKING:
    from pegbox.data import Rows
    from pegbox.methods import Method
    from pegbox.tuning import Seeds, Tuned


@dataclass(frozen=True)
class Output:
    """Where a fit is saved, and where it keeps its checkpoints until then.

    Args:
        folder: The folder of ``--out``.
        overwrite: Whether it may be replaced.
        run: The folder of the checkpoints; none for a solver, so what lies there is not its own.
    """

    folder: Path
    overwrite: bool
    run: Path | None

    @classmethod
    def free(
        cls, folder: Path, method: "Method", *, overwrite: bool, resume: bool, several: bool
    ) -> "Output":
        """Find the places for a fit.

        Raises:
            UsageError: When one of them is taken, before any work.
        """
        from pegbox.methods import Attached
        from pegbox.tuning import check_run_folder

        check_free(folder, overwrite)
        check_writable(folder / "README.md", "--out")
        run = folder.parent / f"{folder.name}-run" if isinstance(method, Attached) else None
        if run:
            check_run_folder(run, several=several, resume=resume)
        return cls(folder, overwrite, run)

    def save(self, tuned: "Tuned", held: "Rows | None", title: str) -> None:
        """Evaluate a tuned model on the held-out rows, save it and print its scores; in one process alone."""
        if not first():
            return
        from rich.console import Console

        from pegbox.reports import scores_panel

        scores = tuned.evaluate(held) if held is not None else None
        tuned.save(self.folder, scores=scores, overwrite=self.overwrite)
        self._clear()
        if scores is not None:
            Console().print(scores_panel(scores, title=title))
        self._tell(tuned)

    def save_seeds(self, seeds: "Seeds", held: "Rows", title: str) -> None:
        """Evaluate every seed's model on the same rows, save the typical one and print the scores of all.

        In one of several processes alone.
        """
        if not first():
            return
        from rich.console import Console

        from pegbox.reports import seeds_table

        scores = seeds.evaluate(held)
        seeds.save(self.folder, scores=scores, overwrite=self.overwrite)
        self._clear()
        Console().print(seeds_table(scores, kept=seeds.typical_seed, title=title))
        name = seeds.typical.method.name
        if scores.alike:
            say(f"{name} draws nothing at random here: the rows are the same, and so are all seeds' scores")
        say(f"seed {seeds.typical_seed} is kept, {_reason(seeds)}; seeds.json has the scores of all")
        self._tell(seeds.typical)

    def _clear(self) -> None:
        from pegbox.tuning import clear_run_folder

        if self.run:
            clear_run_folder(self.run)

    def _tell(self, tuned: "Tuned") -> None:
        cost = tuned.cost
        say(f"{cost.parameters:,} tuned parameters in {cost.seconds:.1f} s, saved in {self.folder}")


def _reason(seeds: "Seeds") -> str:
    if seeds.by_loss:
        return "the one of the median best validation loss"
    return "the first, since there is no validation loss to choose by"
