"""Data to text: teach a model to put records into words, and measure it against several references.

    python examples/data_to_text.py

Records of festivals were held back from etude. With your own data: jsonl with the record and its text, or a
list of texts where several are right. The metrics need pip install 'pegbox[nlg]'.
"""

import json
import tempfile
from pathlib import Path

import pegbox
from pegbox.models.etude import world
from pegbox.tasks import Decoding

TRAIN, TEST = 200, 60


def write(path: Path, rows: int, seed: int) -> None:
    """Records with texts as jsonl; here from the embedded world."""
    made = world.records("festivals", rows, seed=seed)
    lines = [json.dumps({"input": row.record, "targets": [row.text, *row.references]}) for row in made]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def hush(line: str) -> None:
    """Leave out what is said on the way."""


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pegbox-records-"))
    write(folder / "train.jsonl", TRAIN, seed=0)
    write(folder / "test.jsonl", TEST, seed=1)

    # The template is what the model reads; its answer follows, and only that is learnt.
    task = pegbox.Generate.from_file(
        folder / "train.jsonl", template="{input}\nText:", decoding=Decoding(max_tokens=48)
    )
    base = pegbox.load("etude")
    for method in ("zero-shot", "bottleneck"):
        tuned = pegbox.fit(base, task, method, say=hush)
        scores = tuned.evaluate(folder / "test.jsonl")
        names = [
            name for name in ("bleu", "rouge_l", "slot_error_rate", "perplexity") if name in scores.metrics
        ]
        print(f"{method}: " + ", ".join(f"{name} {scores.metrics[name]}" for name in names))

    for line in (folder / "test.jsonl").read_text("utf-8").splitlines()[:2]:
        record = json.loads(line)["input"]
        print(f"record:  {record}\nwritten: {tuned.predict([record + chr(10) + 'Text:'])[0].text}")
    tuned.save(folder / "tuned", scores=scores)
    print(f"data and the tuned model are in {folder}")


if __name__ == "__main__":
    main()
