"""Sentiment from 64 labelled rows: three ways, and which of their gains are more than chance.

    python examples/sentiment.py

Hotels are a domain that etude has never read about. With your own data: two csv files, each with a column of
texts and one of labels, and the name of your model in place of "etude".
"""

import csv
import tempfile
from pathlib import Path

import pegbox
from pegbox.evaluation import compare
from pegbox.models.etude import world

TRAIN, TEST = 64, 500


def write(path: Path, rows: int, seed: int) -> None:
    """A csv of reviews; here from the embedded world."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([row.text, row.label] for row in world.reviews("hotels", rows, seed=seed))


def hush(line: str) -> None:
    """Leave out what is said on the way."""


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pegbox-sentiment-"))
    write(folder / "train.csv", TRAIN, seed=0)
    write(folder / "test.csv", TEST, seed=1)

    # What is asked: columns are guessed and told; template and label words would be derived if left out.
    task = pegbox.Classify.from_file(
        folder / "train.csv",
        template="{text} It was {answer}.",
        label_words={"negative": "terrible", "positive": "great"},
    )
    base = pegbox.load("etude")

    # The same base serves all of them: nothing ever changes it.
    answers = {}
    for method in ("zero-shot", "few-shot", "lora"):
        tuned = pegbox.fit(base, task, method, say=hush)
        test = tuned.read(folder / "test.csv")
        scores = tuned.evaluate(test)
        numbers = [f"{name} {scores.metrics[name]}" for name in ("accuracy", "nll", "ece")]
        print(f"{method}: {', '.join(numbers)}")
        answers[method] = tuned.probabilities(test)
        tuned.save(folder / method, scores=scores)

    # Compared on the same rows: overlapping intervals can hide a clear difference, and the other way round.
    gold = task.gold(test)
    for method in ("few-shot", "lora"):
        for metric in ("accuracy", "nll"):
            found = compare(answers[method], answers["zero-shot"], gold, metric=metric)
            print(f"{metric} of {method} less that of zero-shot: {found}")

    # A saved folder is a PEFT adapter with a model card.
    again = pegbox.Tuned.load(folder / "lora")
    for answer in again.predict(["The towels were superb.", "Nobody came when the shower flooded the room."]):
        print(f"{answer.label}, {answer.probability:.2f} sure")
    print(f"data, tuned models and their model cards are in {folder}")


if __name__ == "__main__":
    main()
