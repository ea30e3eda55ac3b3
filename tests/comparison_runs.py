"""Small comparisons on a tiny model, and a program that is killed while it makes one.

python comparison_runs.py MODEL OUT SEED KILLS: makes the comparison in OUT, killed so many times on the way.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tuning_toy import hush, rows_of, task_of

RUNGS = ("majority", "zero-shot", "closed-form", "ia3", "lora")


def compared(base: Any, folder: Path, **options: Any) -> Any:
    """A comparison of a few rungs on toy rows."""
    import pegbox

    given = {
        "methods": RUNGS,
        "test": rows_of(60, seed=1),
        "training": pegbox.Training(epochs=2, checkpoint_every=1, evaluations_per_epoch=1),
        "seeds": (0, 1),
        "curve": False,
        "say": hush,
        **options,
    }
    return pegbox.compare(base, task_of().with_rows(rows_of(48)), folder=folder, **given)


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each finished cell; all of them hold whole JSON."""
    found = {}
    for path in sorted(folder.glob("cells/*/seed-*/cell.json")):
        json.loads(path.read_text("utf-8"))
        status = path.stat()
        found[f"{path.parent.parent.name}/{path.parent.name}"] = (status.st_ino, status.st_mtime_ns)
    return found


def main() -> None:
    """Be killed at random moments, check after each that nothing was lost, then finish."""
    import pegbox.comparison  # noqa: F401  # so that children need not

    model, out, seed, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dice, kept, told = random.Random(seed), dict[str, tuple[int, int]](), []
    longest = float(sys.argv[5])
    while kills:
        child = os.fork()
        if not child:
            compared(model, out)
            os._exit(0)
        time.sleep(dice.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            # It was done before: the rest of the kills go to another one.
            shutil.rmtree(out)
            kept = {}
            continue
        kills -= 1
        now = finished(out)
        lost = [name for name, status in kept.items() if now.get(name) != status]
        assert not lost, f"lost or measured again: {lost}"
        kept = now
        told.append(len(kept))
    compared(model, out)
    now = finished(out)
    assert all(now[name] == status for name, status in kept.items())
    print(json.dumps({"finished": told, "kills": len(told)}))


if __name__ == "__main__":
    main()
