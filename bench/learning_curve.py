"""How often the learning curve's interval holds what twice and four times the labels really bring.

python bench/learning_curve.py            the whole measurement; goes on where it was stopped
python bench/learning_curve.py --render   only write the section from what is measured
python bench/learning_curve.py --quick    a smoke run: few draws

A draw is a set of labelled rows. The curve sees them alone, and foresees what twice as many, or four times as
many, would change. That is then measured on other rows: those of etude's world by their exact probabilities,
real ones (with MiniLM) by the labels of their test split. Writes its section of docs/learning-curve.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import _common as common

if TYPE_CHECKING:
    from pegbox.data import Examples
    from pegbox.methods import Equations, Solution

FOLDER = common.RUNS / "bench" / "learning_curve"
PAGE = common.ROOT / "docs" / "learning-curve.md"
POOL, SCORED, TESTED, REPEATS = 2048, 1536, 200, 10
# What the method was developed and tried on is not among them: etude on reviews of books, films, phones,
# hotels, bicycles and kettles and on news of the mountain; MiniLM on sst2, ag_news, sms_spam and
# financial_phrasebank.
SOURCES = (
    ("etude", "reviews", "gardens"),
    ("etude", "news", "coast"),
    ("etude", "pairs", "harbour"),
    ("etude", "replies", "airport"),
    ("etude-masked", "reviews", "hotels"),
    ("minilm", "", "snli"),
)
SIZES = (64, 256)
METRICS = ("accuracy", "nll")


@dataclass(frozen=True)
class Draw:
    """One set of labelled rows.

    Args:
        model: The base.
        genre: Genre of the world; empty for real rows.
        source: Domain of the world, or data set.
        rows: Labelled rows that the curve sees.
        scored: ``folds`` of them, or so many ``other`` rows.
        number: Which draw.
    """

    model: str
    genre: str
    source: str
    rows: int
    scored: str
    number: int


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows of a source, read once: equations of those to draw from and of those to measure on."""

    rows: Examples
    known: Equations
    asked: Equations
    truth: NDArray[np.float64]
    finish: Any


@cache
def pool(model: str, genre: str, source: str) -> Pool:
    """Read a source's features, or take them from the feature cache of this bench."""
    from pegbox import FeatureCache, load
    from pegbox.comparison._frozen import Frozen

    if genre:
        from _world import world_rows

        made, other = (world_rows(genre, source, *spec) for spec in ((POOL, 1), (SCORED, 2)))
        task, rows, asked, truth = made.task, made.rows, other.rows, other.truth
    else:
        task, train = common.task_and_rows(source)
        rows = common.part(train, POOL)
        asked = common.part(common.task_and_rows(source, "test")[1], SCORED)
        truth = np.eye(len(task.labels))[task.gold(asked)]
    base = load(common.model_path(model))
    frozen = Frozen.of(base, task, FeatureCache(FOLDER / "features"), common.hush)
    return Pool(rows, frozen.equations(rows), frozen.equations(asked), truth, frozen.finished)


def expected(found: Solution, of: Pool) -> dict[str, float]:
    """Accuracy and log-loss to be expected on the rows to measure on."""
    logits = of.finish(found.logits(of.asked.features, of.asked.logits), of.asked.scale).double()
    chosen = of.truth[np.arange(len(of.truth)), logits.argmax(1).numpy()]
    nll = -(of.truth * logits.log_softmax(1).numpy()).sum(1)
    return {"accuracy": float(chosen.mean()), "nll": float(nll.mean())}


def measure(draw: Draw) -> common.Cell:
    """What the curve foresees for one draw, and what happens."""
    from pegbox.comparison._power_law import power_law
    from pegbox.comparison._subsets import checked_sizes, draws
    from pegbox.comparison._subsets import measure as measured
    from pegbox.methods import ClosedForm

    of = pool(draw.model, draw.genre, draw.source)
    dice = np.random.default_rng([draw.number, draw.rows])
    drawn = dice.permutation(len(of.rows))[: 4 * draw.rows].tolist()
    times = [factor for factor in (1, 2, 4) if factor * draw.rows <= len(drawn)]
    real = {
        factor: expected(ClosedForm().solution(of.known.part(drawn[: factor * draw.rows])), of)
        for factor in times
    }
    mine = drawn[: draw.rows]
    rows, known = of.rows.select(mine), of.known.part(mine)
    asked = known
    if draw.scored == "other":
        asked = of.asked.part(dice.permutation(len(of.asked.gold))[:TESTED].tolist())
    repeats = draws(rows, TESTED if draw.scored == "other" else None, REPEATS, draw.number)
    most = min(len(one.order) for one in repeats)
    sizes = checked_sizes(None, most, known.logits.shape[1], rows.source)
    tables = measured(known, asked, repeats, sizes, of.finish)
    cell: common.Cell = {}
    for name, table, sign in (("accuracy", tables.error, 1), ("nll", tables.nll, -1)):
        law = power_law(sizes, table, draw.rows, resamples=500, seed=draw.number)
        for factor in times[1:]:
            change = law.change(draw.rows, factor * draw.rows)
            cell[f"{name} x{factor}"] = {
                "value": -change.value,
                "low": -change.high,
                "high": -change.low,
                "real": sign * (real[factor][name] - real[1][name]),
            }
    return cell


def lines(cells: Iterable[tuple[Draw, common.Cell]]) -> list[list[str]]:
    """One line for each source, number of rows, way of scoring, metric and factor."""
    groups: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for draw, cell in cells:
        for name, found in cell.items():
            if name.startswith(METRICS):
                metric, _, factor = name.partition(" ")
                key = (
                    f"{draw.genre} {draw.source}".strip(),
                    draw.model,
                    str(draw.rows),
                    draw.scored,
                    metric,
                    factor,
                )
                groups.setdefault(key, []).append(found)
    return [[*key, *summary(found, key[4])] for key, found in groups.items()]


def summary(found: list[dict[str, float]], metric: str) -> list[str]:
    """Draws, mean gain brought and foreseen, error, half width, intervals that hold it, and that exceed 0."""
    real, value, low, high = (
        np.array([one[name] for one in found]) for name in ("real", "value", "low", "high")
    )
    scale, digits = (100, 1) if metric == "accuracy" else (1, 3)
    inside = (low <= real) & (real <= high)
    numbers = (
        real.mean(),
        value.mean(),
        np.sqrt(((real - value) ** 2).mean()),
        (high - low).mean() / 2,
    )
    shown = [f"{scale * number:.{digits}f}" for number in numbers]
    return [str(len(found)), *shown, f"{100 * inside.mean():.0f} %", f"{100 * (low > 0).mean():.0f} %"]


def report(cells: list[tuple[Draw, common.Cell]], command: str) -> str:
    """Return the report in Markdown."""
    header = ["rows of", "model", "labels", "scored on", "metric", "more", "draws", "brought", "foreseen",
              "error", "± of the interval", "held", "sure"]  # fmt: skip
    table = lines(cells)
    totals = []
    for metric in METRICS:
        for factor in ("x2", "x4"):
            found = [one for _, cell in cells if (one := cell.get(f"{metric} {factor}"))]
            if found:
                totals.append(["all", "", "", "", metric, factor, *summary(found, metric)])
    return "\n\n".join(
        [
            "Gain in points of accuracy, or in nats of log-loss; `error` is the root mean square of foreseen "
            "less brought, `held` the share of intervals that hold it, `sure` of those that lie above zero. "
            f"Scored on folds of the labels, or on {TESTED} other rows.",
            "\n".join([f"- Command: `{command}`.", *common.provenance([cell for _, cell in cells])]),
            common.markdown(header, [*table, *totals]),
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the report."""
    parser = common.parser(__doc__)
    parser.add_argument("--draws", type=int, default=5, help="sets of labelled rows of each source")
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    arguments = common.parse(parser)
    sources: tuple[tuple[str, str, str], ...] = SOURCES
    if arguments.quick:
        sources, arguments.draws = SOURCES[:1], 2
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    plan = [
        Draw(*source, rows, scored, number)
        for number in range(arguments.draws)
        for source in sources
        for rows in SIZES
        for scored in ("folds", "other")
    ]
    found = []
    for draw in plan:
        if arguments.render:
            cell = store.find(asdict(draw))
        else:
            with common.threads(arguments.threads):
                cell = store.get(asdict(draw), partial(measure, draw))
            common.log(" ".join(map(str, asdict(draw).values())))
        if cell:
            found.append((draw, cell))
    order = {source: place for place, source in enumerate(sources)}
    found.sort(
        key=lambda pair: (order[pair[0].model, pair[0].genre, pair[0].source], pair[0].rows, pair[0].scored)
    )
    command = f"python bench/learning_curve.py --draws {arguments.draws}"
    common.write_section(arguments.page, "learning-curve", report(found, command))


if __name__ == "__main__":
    main()
