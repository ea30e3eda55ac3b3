"""Closed form against scikit-learn on the same features, and against plain PEFT + Trainer from rows to model.

python bench/closed_form.py            the whole measurement; goes on where it was stopped
python bench/closed_form.py --quick    a smoke run
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import _common as common
from _contest import Side, counts, measure
from _solvers import PEERS, Case, Peer, solve_alone, solve_by_sklearn, solve_whole

FOLDER = common.RUNS / "bench" / "closed_form"
LOSSES = ("squared", "log")
WHOLE = ", with posterior and adapter"
# Epochs and learning rate of PEFT + Trainer: its default epochs at LoRA's usual rate; longer; steeper.
LORAS = ((3, 1e-3), (10, 1e-3), (3, 5e-3))


# From rows to a tuned model


def tune_closed(case: Case, loss: Any, *, bf16: bool) -> common.Cell:
    """Closed form from rows: tokenise, run the base once, choose, solve, make posterior and adapter."""
    import pegbox

    base, method = case.lean_base if bf16 else case.base, pegbox.ClosedForm(loss=loss)
    started = time.perf_counter()
    tuned = pegbox.fit(base, case.task, method, rows=case.train, say=common.hush)
    elapsed = time.perf_counter() - started
    return {"seconds": elapsed, **case.quality(tuned.probabilities(case.test))}


def tune_lora(case: Case, settings: Any, predict: bool, *, bf16: bool) -> common.Cell:
    """Plain PEFT + Trainer from rows: tokenise, train; the model is loaded before the clock starts."""
    import _peer
    from pegbox.models import find_model

    settings = replace(settings, bf16=bf16)
    causal, folder = case.base.kind == "causal", find_model(case.path)
    labels = len(case.task.labels)
    model = _peer.causal_lora(folder, settings) if causal else _peer.encoder_lora(folder, labels, settings)
    started = time.perf_counter()
    rows = (_peer.completions if causal else _peer.encoder_rows)(case.prompt, case.train)
    _peer.train(model, case.prompt.tokenizer, rows, settings)
    elapsed = time.perf_counter() - started
    if not predict:
        return {"seconds": elapsed}
    read = _peer.causal_probabilities if causal else _peer.encoder_probabilities
    return {"seconds": elapsed, **case.quality(read(model, case.prompt, case.test))}


# The plan


def sides_a(case: Case, peers: Iterable[Peer]) -> list[Side]:
    """Return the competitors on cached features."""
    own = [{"threads": count} for count in counts()]
    theirs = [{"threads": count, "jobs": 1} for count in counts()]
    if common.cores() > 1:
        theirs.append({"threads": 1, "jobs": -1})
    return [
        *(Side(loss, partial(solve_alone, case, loss), own, quick=True) for loss in LOSSES),
        *(Side(loss + WHOLE, partial(solve_whole, case, loss), own, quick=True) for loss in LOSSES),
        *(Side(str(peer), partial(solve_by_sklearn, case, peer), theirs) for peer in peers),
    ]


def sides_b(case: Case, loras: Iterable[tuple[float, float]]) -> list[Side]:
    """Return the competitors from rows to a tuned model."""
    import _peer

    settings = [{"threads": count, "bf16": bf16} for count in counts() for bf16 in (False, True)]
    found = [Side(loss, partial(tune_closed, case, loss), settings) for loss in LOSSES]
    for epochs, rate in loras:
        whole = _peer.Settings(epochs=epochs, learning_rate=rate)
        few = partial(tune_lora, case, replace(whole, max_steps=12), False)
        name = f"PEFT + Trainer, {epochs:g} epochs at {rate:g}"
        found.append(Side(name, partial(tune_lora, case, whole, True), settings, probe=few))
    return found


def warm_up() -> None:
    """Import what is imported late and start scikit-learn's worker processes."""
    import joblib
    import peft  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    joblib.Parallel(n_jobs=-1)(joblib.delayed(abs)(number) for number in range(16))


# The report


def report(groups: list[Group]) -> str:
    """Return both parts in Markdown."""
    # Where it is written to is a matter of this machine.
    command = re.sub(r" --out \S+", "", " ".join(["python bench/closed_form.py", *sys.argv[1:]]))
    cells = [cell for group in groups for cell in group.cells]
    parts = [
        "## Closed form against scikit-learn and against LoRA by gradient",
        "\n".join(
            [
                f"- Command: `{command}`.",
                *common.provenance(cells),
            ]
        ),
    ]
    for part, head in (("a", HEAD_A), ("b", HEAD_B)):
        mine = [group for group in groups if group.part == part]
        if mine:
            parts += [head, summary(mine), *(f"{group.title}\n\n{group.table()}" for group in mine)]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Group:
    """All cells of one model, data set, number of rows and part."""

    part: str
    title: str
    cells: list[common.Cell]

    def sides(self) -> dict[str, list[common.Cell]]:
        """Return the cells by side."""
        found: dict[str, list[common.Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell["key"]["side"], []).append(cell)
        return found

    def seconds(self, side: str) -> float:
        """Return a side's median time."""
        return common.median(cell["seconds"] for cell in self.sides()[side])

    def ratio(self, side: str, other: str) -> float:
        """Return how many times as long as another a side takes."""
        return self.seconds(side) / self.seconds(other)

    def against(self, side: str, loss: str) -> str:
        """Return a peer's log-loss and time beside ours."""
        return f"{self.nll(side):.3f}, {self.ratio(side, loss):.1f} times as long ({side})"

    def nll(self, side: str) -> float:
        """Return a side's log-loss on the test rows."""
        return common.median(cell["nll"] for cell in self.sides()[side])

    def peers(self) -> list[str]:
        """Return the sides that are not ours."""
        return [side for side in self.sides() if not side.startswith(LOSSES)]

    def table(self) -> str:
        """Return one line per side."""
        lines = []
        for side, cells in self.sides().items():
            known = "nll" in cells[0]
            lines.append(
                [
                    f"closed form, {side}" if side.startswith(LOSSES) else side,
                    f"{common.median(cell['accuracy'] for cell in cells):.3f}" if known else "",
                    f"{self.nll(side):.3f}" if known else "",
                    common.spread([cell["seconds"] for cell in cells], common.seconds),
                    *(f"{self.ratio(side, loss):.1f}" for loss in LOSSES),
                    ", ".join(f"{name} {value}" for name, value in cells[0]["settings"].items()),
                ]
            )
        return common.markdown(
            ["side", "accuracy", "log-loss", "time", "times squared", "times log", "fastest settings"], lines
        )


def summary(groups: list[Group]) -> str:
    """Return, for each case and loss, the speed against the peer of least log-loss and the fastest one.

    The fastest one is chosen among those whose log-loss is no worse than ours; where all are worse, it is the
    fastest of all.
    """
    lines = []
    for group in groups:
        best = min(group.peers(), key=group.nll)
        for loss in LOSSES:
            as_good = [side for side in group.peers() if group.nll(side) <= group.nll(loss)]
            fast = min(as_good or group.peers(), key=group.seconds)
            lines.append(
                [
                    group.title,
                    loss,
                    f"{group.nll(loss):.3f}",
                    common.seconds(group.seconds(loss)),
                    *(group.against(side, loss) for side in (best, fast)),
                ]
            )
    header = [
        "case",
        "loss",
        "log-loss",
        "time",
        "peer of least log-loss",
        "fastest peer as good, else fastest",
    ]
    return common.markdown(header, lines)


HEAD_A = """### On the same cached features

Time to choose the penalty and to fit, features given. The closed form chooses by leave-one-out (exact for the
squared loss, one Newton step per row for the log loss), LogisticRegressionCV by five folds, both by log-loss.
"30 penalties" is the grid of the squared loss, "8 penalties" that of the log loss before it refines. The
closed form adds to the logits of the base; scikit-learn starts from nothing. "With posterior and adapter" is
all that `ClosedForm.solve` does."""
HEAD_B = """### From rows to a tuned model

Time from texts and labels to a model that answers: for the closed form tokenising, one pass of the base,
the choice and the solve; for PEFT + Trainer tokenising and training (LoRA of rank 8 on queries and values,
batches of 16, epochs and peak learning rate as named; completion labels over the full logits on causal
models, a classification head on encoders). Loading the model is left out on both sides. "bf16 True" means a
base loaded in bfloat16 for the closed form, and autocast for the Trainer."""


def run(arguments: argparse.Namespace) -> list[Group]:
    """Measure all cases."""
    from pegbox.models import quiet_libraries

    quiet_libraries()
    warm_up()
    cells = common.Cells(arguments.out / "cells", arguments.fresh)
    peers, loras = (PEERS[:2], ((1, 1e-3),)) if arguments.quick else (PEERS, LORAS)
    groups = []
    for model in arguments.models:
        for data in arguments.data:
            for rows in arguments.rows:
                case = Case(model, data, rows, arguments.test_rows)
                title = f"{common.model_name(model)}, {data}, {len(case.train)} rows"
                for part in arguments.parts:
                    sides = sides_a(case, peers) if part == "a" else sides_b(case, loras)
                    key = {
                        "part": part,
                        "model": model,
                        "data": data,
                        "rows": rows,
                        "test": arguments.test_rows,
                    }
                    repeats = arguments.repeats if part == "b" else 2 * arguments.repeats - 1
                    groups.append(Group(part, title, measure(cells, key, sides, repeats)))
    return groups


def main() -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["etude", "minilm"], help="etude, minilm or folders")
    parser.add_argument("--data", nargs="+", default=["sst2", "sms_spam"])
    parser.add_argument("--rows", nargs="+", type=int, default=[256, 1000], help="training rows")
    parser.add_argument("--parts", nargs="+", choices=["a", "b"], default=["a", "b"])
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each side of b; of a twice as many less one"
    )
    parser.add_argument("--test-rows", type=int, help="all by default")
    common.add_options(parser, FOLDER, flags=("fresh", "quick"))
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.data, arguments.rows, arguments.test_rows = arguments.data[:1], [64], 100
        arguments.repeats, arguments.epochs = 1, 1
    common.write_report(arguments.out / "report.md", report(run(arguments)))


if __name__ == "__main__":
    main()
