"""The ladder of `pegbox demo`, whose table README.md quotes; writes its section of docs/results.md.

python bench/demo.py            climb it unless it was climbed, then write the section
python bench/demo.py --quick    the same into a folder of its own
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import _common as common

FOLDER = common.RUNS / "bench" / "demo"
PAGE = common.ROOT / "docs" / "results.md"
METHODS = ("zero-shot", "few-shot", "closed-form", "lora")


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


def section(cell: common.Cell) -> str:
    """The table and where it comes from."""
    from pegbox.evaluation import Scores

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
    where = "\n".join(["- Command: `python bench/demo.py`.", *common.provenance([cell])])
    return "\n\n".join(["## The demo's ladder", intro, where, common.markdown(header, lines)])


def main() -> None:
    """Parse, measure, write."""
    parser = common.parser(__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("--quick", action="store_true", help="into a folder of its own")
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.quick:
        arguments.out = arguments.out.with_name("demo-quick")
        arguments.page = arguments.out / "section.md"
    cell = common.Cells(arguments.out, arguments.fresh).get({"what": "demo"}, partial(measure, arguments.out))
    common.write_section(arguments.page, "demo", section(cell))


if __name__ == "__main__":
    main()
