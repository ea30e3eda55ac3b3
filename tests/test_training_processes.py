import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pegbox.training import Settings, train
from training_toy import Rows, tiny_model

ANSWERS = [1, 2, 3, 1, 1, 3, 2, 1] * 5 + [2, 1, 1, 3]

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import test_training_processes as here
here.once(sys.argv[2], batch_size=4, resume=sys.argv[3] == "resume")
"""


def once(folder: str, batch_size: int, resume: bool = False) -> None:
    """Train two epochs of 44 rows in batches of eight (over all processes), two to a step."""
    settings = Settings(
        learning_rate=1e-2, epochs=2, batch_size=batch_size, accumulation=2, precision="float32", patience=0
    )
    rows, valid = Rows(44, answers=ANSWERS), Rows(9, seed=1)
    model = tiny_model(dropout=0)
    train(model, rows, settings=settings, folder=folder, valid=valid, resume=resume, say=lambda _: None)


def launch(folder: Path, how: str) -> None:
    script = folder.parent / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
    ]
    command += [str(script), str(Path(__file__).parent), str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed training")
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    once(str(tmp_path / "one"), batch_size=8)
    launch(tmp_path / "two", "fresh")
    last = "checkpoint-6"
    one = load_file(tmp_path / "one" / last / "parameters.safetensors")
    two = load_file(tmp_path / "two" / last / "parameters.safetensors")
    start = dict(tiny_model(dropout=0).named_parameters())
    for name in one:
        # Six steps of AdamW at 1e-2 move entries by up to 0.06; only the order of the additions differs.
        assert (one[name] - start[name]).abs().max() > 0.01
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=0)
    random = load_file(tmp_path / "two" / last / "random.safetensors")
    assert random["torch"].shape[0] == 2, "each process has its own random state"
    launch(tmp_path / "two", "resume")
