"""A Laplace posterior over LoRA: Pegbox against bayesian-lora 0.0.6 and laplace-torch 0.3.

python bench/laplace.py            the whole measurement; goes on where it was stopped
python bench/laplace.py --quick    a smoke run on small models

Same base, same PEFT adapter, same token ids; each run in a process of its own on one core, all sides by
turns: time and peak memory of the fit and of the mean and covariance of the answers' logits. The peers have
an environment of their own under runs/, which the first run makes. Writes its section of docs/results.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common
from _laplace_peer import CHECKED, KFAC_RANK, LOW_RANK_FROM, NARROW, Order, timed
from label_step import TEMPLATE, Setup, make_rows, save_model

if TYPE_CHECKING:
    from pegbox import Tuned
    from pegbox.data import Examples

FOLDER = common.RUNS / "bench" / "laplace"
PAGE = common.ROOT / "docs" / "results.md"
WORDS = ("great", "terrible", "w0", "w1", "w2")
PRECISION = 1.0
ROWS, TRAIN, TEST, VALID = 200, 128, 64, 8
FEW = (32, 16)
REFERENCE, EXACT = "Pegbox, kron", "Pegbox, exact"
MIXED = "Pegbox, kron, mixed roots"
EXAMPLE, FASTEST, TORCH = "bayesian-lora, as its example", "bayesian-lora, fastest", "laplace-torch, fastest"
AIMS = {"fit": 2.0, "predict": 5.0, "memory": 0.4}
# By the softmax only differences of logits count; both sides compute in float32.
MEANS_AGREE, PRIORS_AGREE = 1e-3, 2e-3


@dataclass(frozen=True)
class Case:
    """One model with its rows.

    Args:
        setup: The random Llama and the rows' lengths.
        labels: Answers.
        train: Rows to fit on.
        test: Rows to predict.
    """

    setup: Setup
    labels: int
    train: int
    test: int

    @property
    def model(self) -> str:
        return f"model-{self.setup.vocabulary}-{self.setup.width}-{self.setup.layers}"


@dataclass(frozen=True)
class Side:
    """One contestant: a grade of Pegbox's, or a peer with its batches.

    Args:
        peer: Of which package; none for Pegbox.
        options: What Pegbox's ``with_posterior`` is given, or fields of a peer's order.
        tokens: Tokens a batch where they are not Pegbox's default.
    """

    peer: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    tokens: int | None = None


OURS = {
    EXACT: Side(options=(("curvature", "exact"),)),
    REFERENCE: Side(options=(("curvature", "kron"),)),
    MIXED: Side(options=(("curvature", "kron"), ("roots", "mixed"))),
}


def peer(name: str, fit: int, predict: int, attention: str, last: bool) -> Side:
    options = {"fit_batch": fit, "predict_batch": predict, "attention": attention, "last": last}
    return Side(name, tuple(options.items()))


# The models and the peers' environment


def rows_of(case: Case) -> tuple[Examples, Examples, Examples]:
    """Rows of random words with random labels: to fit, to predict, and to stop the tuning by."""
    import numpy as np

    rows = make_rows(replace(case.setup, rows=ROWS))
    labels = np.random.default_rng(1).integers(0, case.labels, ROWS)
    rows = replace(rows, labels=tuple(WORDS[label] for label in labels))
    ends = (TRAIN, TRAIN + TEST, ROWS)
    parts = (range(case.train), range(TRAIN, TRAIN + case.test), range(ends[1], ends[2]))
    train, test, valid = (rows.select(part) for part in parts)
    return train, test, valid


def prepare(folder: Path, case: Case) -> None:
    """Write the base, its adapter after two epochs, and all rows as token ids, unless they are there."""
    from pegbox import Classify, Training, fit, load
    from pegbox.models import answer_tokens, quiet_libraries

    at = folder / f"{case.model}-{case.labels}-rows.json"
    if at.is_file():
        return
    common.log(f"tuning {case.model} with {case.labels} labels")
    quiet_libraries()
    save_model(folder / case.model, case.setup)
    train, test, valid = rows_of(replace(case, train=TRAIN, test=TEST))
    words = WORDS[: case.labels]
    task = Classify(labels=words, template=TEMPLATE, label_words=words)
    options: dict[str, Any] = {"valid": valid, "training": Training(epochs=2), "say": common.hush}
    tuned = fit(load(folder / case.model), task, "lora", rows=train, **options)
    tuned.save(adapter(folder, case), overwrite=True)
    coded = {name: tuned.prompt.encode(rows).ids for name, rows in (("train", train), ("test", test))}
    gold = [int(label) for label in tuned.prompt.task.gold(train)]
    at.write_text(json.dumps({**coded, "gold": gold, "answers": list(answer_tokens(tuned.prompt))}), "utf-8")


def adapter(folder: Path, case: Case) -> Path:
    return folder / f"{case.model}-{case.labels}-adapter"


def environment(folder: Path) -> Path:
    """Return the peers' Python; make its environment unless it is there."""
    wanted = ("transformers", "peft", "threadpoolctl", "bayesian-lora==0.0.6", "laplace-torch==0.3")
    return common.environment(
        folder,
        ["install", "-q", "-c", str(common.LIMITS), *wanted],
        # laplace-torch asks for torchvision and never imports it; its wheel breaks a torch of another build.
        ["uninstall", "-q", "-y", "torchvision"],
    )


# One run in a process of its own


def child(folder: Path, case: Case, side: Side, check: bool) -> common.Cell:
    """Fit and predict with Pegbox, after the four shortest rows, which count for nothing."""
    from pegbox import Tuned
    from pegbox.models import quiet_libraries
    from pegbox.uncertainty import _jacobian

    quiet_libraries()
    if side.tokens:
        _jacobian.TOKENS_PER_BATCH = {"cpu": side.tokens}
    tuned = Tuned.load(adapter(folder, case), model=folder / case.model, say=common.hush)
    train, test, _ = rows_of(case)
    few = train.select(sorted(range(case.train), key=lambda row: len(train.fields["text"][row]))[:4])

    def fit(rows: Examples) -> Tuned:
        return tuned.with_posterior(rows, prior_precision=PRECISION, **dict(side.options))

    fit(few).predictive(few)
    before = common.settle()
    sure, fitted = timed(lambda: fit(train))
    common.settle()
    found, predicted = timed(lambda: sure.predictive(test))
    cell = {
        "fit": fitted,
        "predict": predicted,
        "before": before,
        "mean": found.mean.tolist(),
        "covariance": found.covariance.tolist(),
        "parameters": tuned.base.parameters,
        "tokens": sum(tuned.prompt.encode(train).lengths) / len(train),
    }
    if check:
        assert sure.laplace is not None
        narrow = replace(sure, laplace=sure.laplace.with_precision(NARROW))
        cell["prior"] = (narrow.predictive(test).covariance * NARROW).tolist()
    return cell


def measure(
    folder: Path, python: Path, core: int, case: Case, side: Side, check: bool = False
) -> common.Cell:
    """Measure in a process of its own, on one core."""
    if side.peer is None:
        given = {"folder": str(folder), "case": asdict(case), "side": asdict(side), "check": check}
        command = [sys.executable, __file__, "--child", json.dumps(given)]
    else:
        order = Order(
            peer=side.peer,
            model=str(folder / case.model),
            adapter=str(adapter(folder, case)),
            rows=str(folder / f"{case.model}-{case.labels}-rows.json"),
            precision=PRECISION,
            train=case.train,
            test=case.test,
            check=check,
            **dict(side.options),
        )
        script = Path(__file__).with_name("_laplace_peer.py")
        command = [str(python), str(script), json.dumps(asdict(order))]
    return common.printed(common.on_core(core, command), f"{side} on {case}")


# The plan


def fastest(run: Any, name: str, case: Case) -> Side:
    """The peer at its fastest batches and attention on few rows, one run each; by processor time."""
    tried = {
        (fit, predict, attention): run(case, peer(name, fit, predict, attention, True), -1)
        for fit, predict in ((4, 1 if name == "laplace-torch" else 4), (16, 2), (32, 8))
        for attention in ("sdpa", "eager")
    }
    best = {phase: min(tried, key=lambda way: tried[way][phase]["processor"]) for phase in ("fit", "predict")}
    return peer(name, best["fit"][0], best["predict"][1], best["predict"][2], True)


def cases(quick: bool) -> list[Case]:
    small = Setup(vocabulary=8_000, width=256, layers=4, typical=40)
    large = Setup(vocabulary=32_000, width=640, layers=6, typical=40)
    if quick:
        tiny = Setup(vocabulary=500, width=128, layers=2, typical=20)
        return [Case(tiny, 2, 16, 8), Case(tiny, 3, 16, 8)]
    return [Case(small, 2, 128, 64), Case(small, 5, 64, 32), Case(large, 2, 64, 32)]


Measured = dict[Case, dict[str, list[common.Cell]]]


def gather(store: common.Cells, folder: Path, repeats: int, core: int, quick: bool) -> tuple[Measured, dict]:
    """Measure what is missing, all sides of a case by turns."""
    python = environment(FOLDER / "environment")
    wanted = cases(quick)
    with common.threads(1):
        for case in wanted:
            prepare(folder, case)

    def run(case: Case, side: Side, repeat: int) -> common.Cell:
        key = {"repeat": repeat, "peer": side.peer or "pegbox", "model": case.model, "labels": case.labels}
        key |= {"side": asdict(side), "case": asdict(case)}
        found = store.get(key, partial(measure, folder, python, core, case, side, check=repeat == 0))
        shown = [f"{phase} {found[phase]['processor']:.1f} s" for phase in ("fit", "predict")]
        common.log(f"{case.model}, {case.labels} labels, {side.peer or 'pegbox'} {side.options}: {shown}")
        return found

    few = replace(wanted[0], train=min(FEW[0], wanted[0].train), test=min(FEW[1], wanted[0].test))
    sides = {
        **OURS,
        EXAMPLE: peer("bayesian-lora", 4, 4, "sdpa", False),
        FASTEST: fastest(run, "bayesian-lora", few),
        TORCH: fastest(run, "laplace-torch", few),
    }
    found: Measured = {case: {name: [] for name in sides} for case in wanted}
    for repeat in range(repeats):
        for case in wanted:
            for name, side in sides.items():
                found[case][name].append(run(case, side, repeat))
    return found, {name: dict(side.options) for name, side in sides.items() if side.peer}


# The report


def middle(cells: Sequence[common.Cell], phase: str, what: str) -> float:
    return common.median(cell[phase][what] for cell in cells)


def growth(cells: Sequence[common.Cell], phase: str | None = None) -> float:
    """Bytes of the peak beyond what was resident before, of one phase or of both."""
    phases = (phase,) if phase else ("fit", "predict")
    return common.median(max(cell[name]["peak"] for name in phases) - cell["before"] for cell in cells)


def called(case: Case, sides: Mapping[str, list[common.Cell]]) -> str:
    million = sides[REFERENCE][0]["parameters"] / 1e6
    return f"{million:.0f} M, {case.labels} labels"


def timetable(found: Measured) -> str:
    lines = []
    for case, sides in found.items():
        for name, cells in sides.items():
            times = [
                common.seconds(middle(cells, phase, clock))
                for phase in ("fit", "predict")
                for clock in ("processor", "seconds")
            ]
            whole = common.median(max(c["fit"]["peak"], c["predict"]["peak"]) for c in cells)
            memory = [growth(cells, "fit"), growth(cells, "predict"), whole]
            lines.append([called(case, sides), name, *times, *map(common.mebibytes, memory)])
    header = ["model", "side", "fit", "by the clock", "predict", "by the clock", "MiB to fit",
              "MiB to predict", "MiB in all"]  # fmt: skip
    return common.markdown(header, lines)


def ratios(found: Measured) -> str:
    """How Pegbox's default Kronecker fit compares, pairs of one turn against one another."""
    lines = []
    for case, sides in found.items():
        for name, cells in sides.items():
            if name in OURS:
                continue
            times = []
            for way, phase in ((REFERENCE, "fit"), (MIXED, "fit"), (REFERENCE, "predict")):
                pairs = zip(sides[way], cells, strict=True)
                kept = [b[phase]["processor"] / a[phase]["processor"] for a, b in pairs]
                well = common.median(kept) >= AIMS[phase]
                times.append(common.met(common.spread(kept, "{:.1f}".format), well))
            share = growth(sides[REFERENCE]) / growth(cells)
            lines.append(
                [called(case, sides), name, *times, common.met(f"{share:.2f}", share <= AIMS["memory"])]
            )
    header = ["model", "peer", "fit, times as fast", "fit, mixed roots", "predict, times as fast",
              "memory, Pegbox's share"]  # fmt: skip
    return common.markdown(header, lines)


def variances(cell: common.Cell) -> Any:
    import numpy as np

    return np.array(cell["covariance"]).diagonal(axis1=1, axis2=2)


def agreement(found: Measured) -> str:
    """Check what all sides must agree in; show how the posteriors differ."""
    import numpy as np

    lines = []
    for case, sides in found.items():
        exact = sides[EXACT][0]
        prior = np.array(exact["prior"])
        means = np.array(exact["mean"])
        for name, cells in sides.items():
            other = np.array(cells[0]["mean"])
            apart = np.abs(
                (means - means.mean(1, keepdims=True)) - (other - other.mean(1, keepdims=True))
            ).max()
            again = np.array(cells[0]["prior"])[:CHECKED]
            far = np.abs(again - prior[:CHECKED]).max() / np.abs(prior[:CHECKED]).max()
            assert apart < MEANS_AGREE, f"{name}: means differ by {apart}"
            assert far < PRIORS_AGREE, f"{name}: the prior's variances differ by {far}"
            logs = [np.log(own).ravel() for own in (variances(exact), variances(cells[0]))]
            correlation = np.corrcoef(*logs)[0, 1]
            left = np.median(variances(cells[0]) / prior.diagonal(axis1=1, axis2=2))
            label = called(case, sides)
            lines.append([label, name, f"{apart:.0e}", f"{far:.0e}", f"{left:.2f}", f"{correlation:.3f}"])
    header = ["model", "side", "means differ by", "variances by the prior alone, by",
              "variance left of the prior's", "correlation with exact"]  # fmt: skip
    return common.markdown(header, lines)


def report(found: Measured, ways: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """Return the section in Markdown."""
    flat = [cell for sides in found.values() for cells in sides.values() for cell in cells]
    versions = {name: text for cell in flat for name, text in cell.get("peers", {}).items()}
    first = next(iter(found.values()))[REFERENCE]
    chosen = "; ".join(
        f"{name}: {way['fit_batch']} rows a batch to fit, {way['predict_batch']} to predict, "
        f"{way['attention']} attention, logits of {'the last token' if way['last'] else 'all tokens'}"
        for name, way in ways.items()
    )
    shape = "; ".join(
        f"{called(case, sides)}: {case.train} rows to fit and {case.test} to predict"
        for case, sides in found.items()
    )
    return "\n\n".join(
        [
            "## Laplace posterior: time and memory",
            "A posterior over the same LoRA adapter (rank 8 on queries and values of a random Llama, tuned "
            f"for two epochs on rows of {first[0]['tokens']:.0f} tokens with random labels), by Pegbox and "
            "by two peers, from the same token ids. Fit is the curvature of all training rows; predict the "
            "mean and covariance of the answers' logits of all test rows, under prior precision "
            f"{PRECISION:g}. Each run has a process of its own on one thread of one core, all sides by "
            f"turns; medians of {len(first)}. Times are the processor's, and beside them the clock's, which "
            "other work on the machine disturbed. Memory is the high-water mark of resident memory beyond "
            "what was resident after loading and a warm-up on four rows.",
            "\n".join(
                [
                    f"- Command: `{command}`.",
                    *common.provenance(flat),
                    "- Peers: "
                    + ", ".join(f"{name} {text}" for name, text in sorted(versions.items()))
                    + ".",
                    f"- Rows: {shape}.",
                    f"- {chosen}.",
                ]
            ),
            timetable(found),
            f"The peers over `{REFERENCE}`, as pairs of one turn (processor time; memory is the larger of "
            "both peaks). Bold is what meets an aim, which were set against bayesian-lora: fit {fit:g} times "
            "as fast, predict {predict:g} times, {memory:g} of the memory.".format(**AIMS),
            ratios(found),
            NOTES,
            agreement(found),
        ]
    )


NOTES = (
    "How the sides are run: Pegbox by its defaults. "
    "Exact roots take one backward pass for each answer but one, mixed roots one for all. bayesian-lora is "
    f"run by its README and its example's settings (`n_kfac` {KFAC_RANK}, `lr_threshold` {LOW_RANK_FROM}, "
    "batches of 4 where the example has 5 and 4, so that they "
    "divide the rows, as it asks), and again with the batches and attention that were fastest on 32 and 16 "
    "rows of the smallest model, reading the last token's logits alone, which its documentation does not do. "
    "Its curvature is 1/batch of the rows' sum; prior and variance are rescaled by the batch, which costs "
    "nothing, so that all sides have the same posterior but for their approximations. It takes the curvature "
    "of the last token alone, next to nothing here beside that of all tokens, and draws one label a row. "
    'laplace-torch has `hessian_structure="kron"` with '
    "its default backend, over all weights that want gradients. What must agree does: the means, and the "
    f"variances of {CHECKED} rows under a prior so narrow that the curvature does not matter, which are the "
    "Jacobians alone. Beside these the median of what the curvature leaves of the prior's variance, and the "
    "correlation of the log variances with those of the exact curvature:"
)


def case_of(given: Mapping[str, Any]) -> Case:
    return Case(**{**given, "setup": Setup(**given["setup"])})


def side_of(given: Mapping[str, Any]) -> Side:
    return Side(**{**given, "options": tuple((name, value) for name, value in given["options"])})


def main() -> None:
    """Parse, measure what is missing, write the section; or measure one side for the process that asked."""
    parser = common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that all runs are on")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "quick"))
    parser.add_argument("--child", type=json.loads, help="used by the script itself")
    given = common.parse(parser)
    if given.child:
        told = given.child
        case, side = case_of(told["case"]), side_of(told["side"])
        with common.threads(1):
            print(json.dumps(child(Path(told["folder"]), case, side, told["check"])))
        return
    if given.quick:
        given.repeats = 1
    given.out.mkdir(parents=True, exist_ok=True)
    store = common.Cells(given.out / "cells", given.fresh)
    command = f"python bench/laplace.py --repeats {given.repeats}"
    found, ways = gather(store, given.out, given.repeats, given.core, given.quick)
    common.write_section(given.page, "laplace", report(found, ways, command))


if __name__ == "__main__":
    main()
