from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pegbox.errors import UsageError, check_seeds
from pegbox.evaluation import Estimate
from pegbox.methods import Method
from pegbox.models import Base, load
from pegbox.tasks import Task
from pegbox.training import tell
from pegbox.tuning._fit import fit
from pegbox.tuning._once import Once
from pegbox.tuning._run_folder import no_trace_of_wrong_use, seed_folder
from pegbox.tuning._saving import save
from pegbox.tuning._tuned import Tuned

FORMAT = "pegbox.seeds/1"
SEEDS = "seeds.json"


@dataclass(frozen=True)
class SeedScores:
    """Scores of the same fit under several seeds.

    The interval of a mean tells how far the seed moves the number: split, initial values, order of the rows,
    dropout, demonstrations. How far the choice of the scored rows moves it is told by the interval of each
    seed's own scores.

    Args:
        seeds: The seeds.
        scores: Each seed's scores, in the same order.
        metrics: For each metric the mean over the seeds with its 95 % t-interval; of one seed without.
    """

    seeds: tuple[int, ...]
    scores: tuple[Any, ...]
    metrics: Mapping[str, Estimate]

    @property
    def alike(self) -> bool:
        """Whether every seed has the same value of every metric, as with a method that draws nothing."""
        first, *others = [_numbers(part.to_json()) for part in self.scores]
        # As text, since an undefined value does not equal itself.
        return bool(others) and all(repr(part) == repr(first) for part in others)

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values: the means, and each seed's own scores."""
        means = {name: _plain(estimate) for name, estimate in self.metrics.items()}
        each = [
            {"seed": seed, "scores": scores.to_json()}
            for seed, scores in zip(self.seeds, self.scores, strict=True)
        ]
        return {"format": FORMAT, "seeds": list(self.seeds), "metrics": means, "each": each}

    def __str__(self) -> str:
        width = max(map(len, self.metrics), default=0)
        lines = [f"{name:{width}}  {estimate}" for name, estimate in self.metrics.items()]
        return "\n".join([f"mean over {len(self.seeds)} seeds, with the 95 % t-interval", *lines])


@dataclass(frozen=True, eq=False)
class Seeds:
    """The same fit under several seeds.

    Args:
        seeds: The seeds.
        tuned: What each gave, in the same order.
    """

    seeds: tuple[int, ...]
    tuned: tuple[Tuned, ...]

    @property
    def typical(self) -> Tuned:
        """The tuned model of :attr:`typical_seed`."""
        return self.tuned[self.seeds.index(self.typical_seed)]

    @property
    def typical_seed(self) -> int:
        """The one to keep where one is wanted: of the median lowest validation loss, else of the first seed.

        The best one would make the mean over the seeds too modest and the kept one's scores too proud. Of an
        even number it is the better of the two in the middle.
        """
        if not self.by_loss:
            return self.seeds[0]
        losses = [loss for loss in self._losses if loss is not None]
        return self.seeds[losses.index(sorted(losses)[(len(losses) - 1) // 2])]

    @property
    def by_loss(self) -> bool:
        """Whether there is a validation loss of every seed to tell the typical one by."""
        return None not in self._losses

    @property
    def _losses(self) -> list[float | None]:
        return [_valid_loss(tuned) for tuned in self.tuned]

    def evaluate(self, rows: Any, **options: Any) -> SeedScores:
        """Score each on the same rows.

        Args:
            rows: As for :meth:`Tuned.evaluate`.
            options: As for :meth:`Tuned.evaluate`.

        Raises:
            InputError: For rows that cannot be scored.
        """
        scores = tuple(tuned.evaluate(rows, **options) for tuned in self.tuned)
        values = [_numbers(part.to_json()) for part in scores]
        shared = [name for name in values[0] if all(name in part for part in values)]
        metrics = {name: mean_interval([part[name] for part in values]) for name in shared}
        return SeedScores(self.seeds, scores, metrics)

    def save(self, folder: str | Path, *, scores: SeedScores, overwrite: bool = False) -> Path:
        """Write the typical one as :meth:`Tuned.save` does, and ``seeds.json`` with the scores of all.

        Args:
            folder: Where; its parents are made. It appears whole or not at all.
            scores: What :meth:`evaluate` gave.
            overwrite: Whether an existing folder that Pegbox wrote may be replaced.

        Raises:
            UsageError: For scores of other seeds.
        """
        if scores.seeds != self.seeds:
            raise UsageError(
                "the scores are those of other seeds",
                where=f"seeds {list(scores.seeds)}",
                expected=f"seeds {list(self.seeds)}",
                fix="pass what evaluate of the same object gave",
            )
        kept = self.typical_seed
        content = {**scores.to_json(), "kept": kept, "best_valid_losses": self._losses}
        own = scores.scores[self.seeds.index(kept)]
        return save(self.typical, Path(folder), scores=own, overwrite=overwrite, beside={SEEDS: content})


def fit_seeds(
    base: Base | str | Path,
    task: Task,
    method: Method | str = "closed-form",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    say: Callable[[str], None] = tell,
    **options: Any,
) -> Seeds:
    """Fit once per seed, on the same rows.

    Args:
        base: As for :func:`pegbox.fit`; loaded once.
        task: As for :func:`pegbox.fit`.
        method: As for :func:`pegbox.fit`.
        seeds: The seeds, each once.
        folder: Holds the checkpoints of each seed in a folder of its own, ``seed-0`` and so on. With
            ``resume=True`` finished seeds are read from there, not trained again.
        say: Receives lines for the user.
        options: Everything else that :func:`pegbox.fit` takes, but ``seed``.

    Returns:
        One tuned model per seed. They share the base's weights.

    Raises:
        UsageError: No seeds, or one twice, and for what :func:`pegbox.fit` refuses.
    """
    seeds = check_seeds(seeds)
    if "seed" in options:
        raise UsageError("fit_seeds takes no seed", expected="seeds", fix="write seeds=(0, 1, 2)")
    if not isinstance(base, Base):
        base = load(base, quantise=_quantise(method))
    say = Once.of(say)
    made = []
    with no_trace_of_wrong_use(None if folder is None else Path(folder)):
        for number, seed in enumerate(seeds, start=1):
            say(f"seed {seed} ({number} of {len(seeds)})")
            place = None if folder is None else seed_folder(folder, seed)
            made.append(fit(base, task, method, seed=seed, folder=place, say=say, **options))
    return Seeds(tuple(seeds), tuple(made))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Return the mean with its 95 % interval, mean ± t(0.975, n - 1) s / sqrt(n).

    Source: Student, The probable error of a mean, 1908. Values that are undefined make the mean undefined;
    one value alone has no interval.
    """
    mean = fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return Estimate(mean, math.nan, math.nan)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def _quantise(method: Method | str) -> Any:
    from pegbox.methods import build

    return (build(method) if isinstance(method, str) else method).quantise


def _valid_loss(tuned: Tuned) -> float | None:
    return tuned.details.get("history", {}).get("best_valid_loss")


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of any kind of scores, by name; one that is undefined is NaN."""
    return {
        name: math.nan if part["value"] is None else part["value"] for name, part in scores["metrics"].items()
    }


def _plain(estimate: Estimate) -> dict[str, float | None]:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
