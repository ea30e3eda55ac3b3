from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.cli._options import check_free, check_least, check_writable, say

if TYPE_CHECKING:
    from pegbox.models import Base, FeatureCache
    from pegbox.models.etude.world import Review
    from pegbox.reports import LadderRow
    from pegbox.tasks import Classify
    from pegbox.tuning import Tuned

DOMAIN = "hotels"
TRAIN_ROWS, TEST_ROWS = 256, 1000
METHODS = ("zero-shot", "few-shot", "closed-form", "lora")


def demo(*, out: Path = Path("pegbox-demo"), overwrite: bool = False, seed: int = 0) -> None:
    """Climb the ladder on the embedded model: zero-shot, few-shot, closed form and LoRA on 256 reviews.

    Args:
        out: Folder for the data, the tuned models and the picture.
        overwrite: Replace the folder.
        seed: Seed of the rows and of the methods.
    """
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from pegbox._atomic import folder
    from pegbox.models import FeatureCache, load, quiet_libraries
    from pegbox.models.etude.world import reviews
    from pegbox.reports import ladder
    from pegbox.tasks import Classify

    check_least(seed, 0, "--seed")
    check_free(out, overwrite)
    check_writable(out / "README.md", "--out")
    quiet_libraries()
    with folder(out, overwrite=overwrite) as target, TemporaryDirectory(prefix="pegbox-") as scratch:
        _write(target / "train.csv", reviews(DOMAIN, TRAIN_ROWS, seed=2 * seed))
        _write(target / "test.csv", reviews(DOMAIN, TEST_ROWS, seed=2 * seed + 1))
        task = Classify.from_file(
            target / "train.csv", template="{text} It was {answer}.", label_words=("terrible", "great")
        )
        base = load("etude")
        say(f"etude has {base.parameters:,} parameters and has never read about {DOMAIN}")
        say(f"{TRAIN_ROWS} labelled reviews to tune on, {TEST_ROWS} others to measure on")
        cache = FeatureCache(Path(scratch))
        rungs = [_rung(base, task, name, target, seed, cache) for name in METHODS]
    Console().print(ladder(rungs, title=f"{DOMAIN} reviews, {TEST_ROWS} test rows, 95 % intervals"))
    print(_next(out))


def _rung(
    base: "Base", task: "Classify", method: str, target: Path, seed: int, cache: "FeatureCache"
) -> "LadderRow":
    from pegbox.reports import LadderRow, reliability_diagram
    from pegbox.tuning import adapter_bytes
    from pegbox.tuning import fit as tune

    tuned: Tuned = tune(
        base, task, method, seed=seed, cache=cache, say=lambda line: say(f"  {method}: {line}")
    )
    scores = tuned.evaluate(target / "test.csv")
    tuned.save(target / method, scores=scores)
    reliability_diagram(scores, target / f"{method}.png", title=f"{method} on {DOMAIN} reviews")
    say(f"{method}: accuracy {scores.metrics['accuracy']}")
    row = LadderRow.from_scores(
        method, scores, parameters=tuned.cost.parameters, adapter_bytes=adapter_bytes(target / method)
    )
    return replace(row, seconds=tuned.cost.seconds)


def _write(path: Path, rows: "Sequence[Review]") -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([row.text, row.label] for row in rows)


def _next(out: Path) -> str:
    return "\n".join(
        [
            "flips: rows that the method mended (+) and broke (-) compared with zero-shot.",
            "",
            "What to do next:",
            f"  pegbox predict {out}/closed-form {out}/test.csv | head      label rows with probabilities",
            f"  pegbox check {out}/train.csv --test {out}/test.csv          examine a file before tuning",
            "  pegbox fit YOUR.csv --model YOUR_MODEL --out tuned          the same on your own rows",
            f"Data, tuned models and reliability diagrams (*.png) lie in {out}/.",
        ]
    )
