"""Entities: find people, places and organisations in sentences, with a head on every token.

    python examples/entities.py

Sentences about expeditions were held back from etude-masked. With your own data: a CoNLL file, or jsonl with
a list of words and a list of BIO tags in each row.
"""

import json
import tempfile
from pathlib import Path

import pegbox
from pegbox.models.etude import world

TRAIN, TEST = 200, 200


def write(path: Path, rows: int, seed: int) -> None:
    """Words and tags as jsonl; here from the embedded world."""
    made = world.names("expeditions", rows, seed=seed)
    lines = [json.dumps({"tokens": row.tokens, "tags": row.label}) for row in made]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def hush(line: str) -> None:
    """Leave out what is said on the way."""


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pegbox-entities-"))
    write(folder / "train.jsonl", TRAIN, seed=0)
    write(folder / "test.jsonl", TEST, seed=1)

    task = pegbox.Tag.from_file(folder / "train.jsonl")
    print("tags:", ", ".join(task.labels))

    # A masked model sees the words on both sides. A part of the rows is held out to stop by.
    tuned = pegbox.fit("etude-masked", task, pegbox.Bottleneck(), say=hush)
    scores = tuned.evaluate(folder / "test.jsonl")
    for name in ("precision", "recall", "f1"):
        print(f"{name} of whole entities {scores.metrics[name]}")

    # A sentence to tag is a list of words, or a text.
    words = json.loads((folder / "test.jsonl").read_text("utf-8").splitlines()[1])["tokens"]
    print(" ".join(words))
    for entity in tuned.predict([words])[0].entities:
        print(f"  {entity.type}: {entity.text}, {entity.probability:.2f} sure")
    tuned.save(folder / "tuned", scores=scores)
    print(f"data and the tuned model are in {folder}")


if __name__ == "__main__":
    main()
