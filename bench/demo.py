"""The ladder of `pegbox demo` and the comparison of README.md; writes its section of docs/results.md.

python bench/demo.py            climb both unless they were climbed, then write section and picture
python bench/demo.py --quick    the same into a folder of its own, the comparison under one seed

The picture is docs/pictures/ladder.png, the comparison's own diagram of accuracy against time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import _common as common

FOLDER = common.RUNS / "bench" / "demo"
PAGE = common.ROOT / "docs" / "results.md"
PICTURE = common.ROOT / "docs" / "pictures" / "ladder.png"
METHODS = ("zero-shot", "few-shot", "closed-form", "lora")
COMPARED = "majority,bag-of-words,zero-shot,closed-form,lora"


def measure(folder: Path) -> common.Cell:
    """Run the demo, and keep the scores and the number of parameters of each rung."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pegbox", "demo", "--out", str(folder / "demo"), "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def kept(method: str, name: str) -> dict:
        found: dict = json.loads((folder / "demo" / method / name).read_text("utf-8"))
        return found

    return {
        "scores": {method: kept(method, "scores.json") for method in METHODS},
        "parameters": {method: kept(method, "pegbox.json")["cost"]["parameters"] for method in METHODS},
    }


def compare(folder: Path, seeds: int) -> common.Cell:
    """Run README.md's `pegbox compare` on the demo's rows, and keep all that it found."""
    rows, out = folder / "demo", folder / "compared"
    command = [sys.executable, "-m", "pegbox", "compare", str(rows / "train.csv")]
    command += ["--test", str(rows / "test.csv"), "--model", "etude", "--methods", COMPARED]
    command += ["--out", str(out), "--seeds", str(seeds)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"comparison": json.loads((out / "comparison.json").read_text("utf-8"))}


def draw(compared: common.Cell, path: Path) -> None:
    """Draw the comparison's accuracy against time, as its report does."""
    from pegbox.comparison import Comparison
    from pegbox.reports import cost_diagram

    path.parent.mkdir(parents=True, exist_ok=True)
    cost_diagram(
        Comparison.from_json(compared["comparison"]), path, "accuracy against the time that a rung costs"
    )
    common.log(f"drawn into {path}")


def section(cell: common.Cell, compared: common.Cell) -> str:
    """The table, the comparison's ladder and verdict, and where they come from."""
    from pegbox.comparison import Comparison
    from pegbox.evaluation import Scores

    comparison = Comparison.from_json(compared["comparison"])
    lines = []
    for method in METHODS:
        scores = Scores.from_json(cell["scores"][method])
        found = scores.flips
        changed = found is not None and method != "zero-shot"
        flips = f"+{found.wrong_to_right.count} − {found.right_to_wrong.count}" if found and changed else ""
        number = scores.metrics
        lines.append(
            [
                method,
                str(number["accuracy"]),
                f"{number['nll'].value:.3f}",
                f"{number['ece'].value:.3f}",
                flips,
                f"{cell['parameters'][method]:,}",
            ]
        )
    header = ["method", "accuracy", "NLL", "ECE", "mended − broken", "parameters"]
    intro = (
        "etude is asked about hotel reviews, a domain that was held back from its pretraining; 256 labelled "
        "rows to tune on, 1,000 others to measure on. The best any classifier can reach there is about 0.93, "
        "since labels are drawn ([its truth](etude.md#its-truth))."
    )
    where = "\n".join(["- Command: `python bench/demo.py`.", *common.provenance([cell, compared])])
    then = (
        "README.md's `pegbox compare` on the same rows, LoRA under three seeds; its diagram is "
        "[README's picture](pictures/ladder.png):"
    )
    parts = [intro, where, common.markdown(header, lines), then, *comparison.verdict]
    return "\n\n".join(["## The demo's ladder", *parts])


def main() -> None:
    """Parse, measure, write."""
    parser = common.parser(__doc__)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "quick"))
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.picture = arguments.out / PICTURE.name
    seeds = 1 if arguments.quick else 3
    store = common.Cells(arguments.out, arguments.fresh)
    cell = store.get({"what": "demo"}, partial(measure, arguments.out))
    found = store.get({"what": "compare", "seeds": seeds}, partial(compare, arguments.out, seeds))
    draw(found, arguments.picture)
    common.write_section(arguments.page, "demo", section(cell, found))


if __name__ == "__main__":
    main()
