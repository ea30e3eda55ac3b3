"""Load saved adapters in a process that never saw them made, and write down what they answer.

Called as ``python conformance_reader.py CASES OUT``; not a test itself.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conformance import ROWS
from pegbox.models import answer_logits, encode
from pegbox.tuning import Tuned
from tuning_toy import hush


def plain(folder: str, tuned: Tuned) -> torch.Tensor:
    """The answers of the adapter loaded by plain PEFT on the base's own module."""
    from peft import PeftModel

    module: Any = PeftModel.from_pretrained(tuned.base.module(2), folder).eval()
    encoded = encode(tuned.base, tuned.prompt, ROWS, say=hush)
    return answer_logits(module, tuned.base, tuned.prompt, encoded).logits


def main(cases: str, out: str) -> None:
    answers: dict[str, torch.Tensor] = {}
    failures: dict[str, str] = {}
    for entry in json.loads(Path(cases).read_text("utf-8")):
        name, folder = entry["name"], entry["folder"]
        try:
            tuned = Tuned.load(folder, model=entry["model"], dtype="float32", say=hush)
            answers[f"{name}/pegbox"] = tuned.logits(ROWS).contiguous()
            if entry["adapter"]:
                answers[f"{name}/peft"] = plain(folder, tuned).contiguous()
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    save_file(answers, Path(out) / "answers.safetensors")
    (Path(out) / "failures.json").write_text(json.dumps(failures), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
