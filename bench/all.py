"""Every benchmark whose figures stand in README.md and docs, one after the other: `make results`.

python bench/all.py                      measure what is missing, then write every page and section
python bench/all.py --only sft rlhf      only these
python bench/all.py --list               only print the commands

Each script goes on where it was stopped, and so does the whole: run it again. A script that fails is named at
the end, and the others run. To measure everything anew, put runs/ and bench/every_method.jsonl aside first.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import _common as common

# A page that a script writes whole comes before the sections that others write into it. Arguments are those
# that the pages name; without them a script measures more.
COMMANDS = (
    "closed_form --data sst2 --rows 256 --repeats 1",
    "label_step --rows 64 --batches 16 32",
    "results",
    "demo",
    "head_rate",
    "trunk_cache",
    "methods",
    "every_method --keep",
    "estimates",
    "truth",
    "fewshot --rows 16 --repeats 1",
    "language_loss",
    "replay",
    "learning_curve --draws 5",
    "ladders",
    "laplace --repeats 2",
    "calibrate --data sst2 financial_phrasebank snli",
    "calibrate --model minilm --data arc_easy",
    "calibrate --model etude --data arc_easy --tested 200",
    "calibrate --model etude --data reviews",
    "calibrate --model minilm --data clinc_small --tested 150 --ways map temperature ensemble exact"
    " --seeds 0 1 2 3 4",
    "generation",
    "claims",
    "sft --repeats 1",
    "rlhf",
    "ppo --steps 20 --seeds 0 1 2",
    "gpu --repeats 2",
)


def run(command: str) -> bool:
    """Run one script; whether it succeeded."""
    name, *arguments = shlex.split(command)
    started = time.monotonic()
    common.log(f"python bench/{name}.py {shlex.join(arguments)}".rstrip())
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments],
        cwd=common.ROOT,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    common.log(f"{name}: exit code {done.returncode} after {common.seconds(time.monotonic() - started)}")
    return done.returncode == 0


def main() -> None:
    """Parse, run, name what failed."""
    parser = common.parser(__doc__)
    names = sorted({command.split()[0] for command in COMMANDS})
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SCRIPT")
    parser.add_argument("--list", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    chosen = [command for command in COMMANDS if command.split()[0] in arguments.only]
    if arguments.list:
        for command in chosen:
            name, *rest = command.split(" ", 1)
            print(" ".join([f"python bench/{name}.py", *rest]))
        return
    failed = [command for command in chosen if not run(command)]
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
