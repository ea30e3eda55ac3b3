from pathlib import Path
from typing import Literal

from pegbox.cli._options import check_free, check_least, check_writable, emit, say


def merge(
    tuned: Path,
    *,
    out: Path,
    data: str | None = None,
    model: str | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    format: Literal["text", "json"] = "text",
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Fold an adapter into the weights and write a plain model folder, which Transformers loads by itself.

    Args:
        tuned: Folder that pegbox fit wrote.
        out: Folder for the merged model.
        data: File of rows to measure on how far the answers change; random tokens when not given.
        model: Where the base lies now, when its name no longer leads there.
        on_bad_rows: What to do with rows that cannot be used.
        dtype: Number format to write; auto is that of the base as it is loaded.
        format: Print text or JSON.
        device: auto, cpu, cuda or mps.
        seed: Seed of the random tokens.
        overwrite: Replace the output folder.
    """
    import json

    from pegbox.models import quiet_libraries
    from pegbox.tuning import Tuned
    from pegbox.tuning import merge as write

    check_least(seed, 0, "--seed")
    check_free(out, overwrite)
    check_writable(out / "README.md", "--out")
    quiet_libraries()
    loaded = Tuned.load(tuned, model=model, device=device, say=say)
    rows = loaded.read(data, labelled=False, on_bad=on_bad_rows) if data else None
    merged = write(loaded, out, rows=rows, dtype=dtype, overwrite=overwrite, seed=seed)
    if format == "json":
        emit(json.dumps(merged.to_json(), indent=1, allow_nan=False) + "\n")
    else:
        emit("\n".join(merged.lines()) + "\n")
