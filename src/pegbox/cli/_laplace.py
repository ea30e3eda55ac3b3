from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import (
    check_free,
    check_least,
    check_writable,
    feature_cache,
    first,
    names,
    say,
    words,
)
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.tuning import Tuned


def laplace(
    adapter: str,
    data: str | None = None,
    *,
    valid: str | None = None,
    curvature: Literal["exact", "kron", "ekfac", "diag"] = "exact",
    part: str = "all",
    prior_precision: float | None = None,
    prior_mean: Literal["zero", "initial"] = "zero",
    roots: Literal["exact", "mixed"] = "exact",
    rank: int = 64,
    text: str | None = None,
    label: str | None = None,
    template: str | None = None,
    label_words: str | None = None,
    model: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    on_bad_rows: Literal["error", "drop"] = "error",
    too_long: Literal["shorten", "error"] = "shorten",
    device: str = "auto",
    seed: int = 0,
    no_cache: bool = False,
) -> None:
    """Give a LoRA adapter a posterior after it was tuned: less sure answers where it knows less.

    Writes posterior.safetensors and posterior.json beside the adapter, and tells of them in its model card,
    README.md; nothing else there changes. pegbox predict and evaluate then average over the posterior. A
    closed-form fit has its exact posterior already, needs no data, and begins to use it.

    Args:
        adapter: Folder that pegbox fit wrote, or folder or hub id of a LoRA adapter from elsewhere.
        data: The labelled rows that it was tuned on. Those among them that it was not tuned on choose the
            precision of the prior.
        valid: Labelled rows that it was not tuned on, to choose the precision by.
        curvature: exact (the whole matrix), kron or ekfac (factors per layer), or diag.
        part: Which weights are uncertain: all that the adapter has, its factors (lora), its head, or last-N:
            the whole weights of the top N layers, also after full fine-tuning.
        prior_precision: Precision of the prior, above 0; else chosen by held-out rows, else by the evidence.
        prior_mean: Around what the prior lies, which only the evidence asks: zero, or initial values.
        roots: exact takes one backward pass per label but one; mixed takes one for all, with random signs.
        rank: Directions that kron and ekfac keep of a side of a layer that is wider than 256.
        text: Text column, or two with a comma; of an adapter from elsewhere guessed when not given.
        label: Label column; of an adapter from elsewhere guessed when not given.
        template: Template of an adapter from elsewhere; derived when not given.
        label_words: Words of an adapter from elsewhere, such as positive=great,negative=terrible.
        model: Where the base lies, when the adapter's own name does not lead there.
        out: Folder for a whole copy with the posterior; an adapter from elsewhere needs one.
        overwrite: Replace that folder.
        on_bad_rows: What to do with rows that cannot be used.
        too_long: What to do with texts that do not fit into the context.
        device: auto, cpu, cuda or mps.
        seed: Seed of the random signs, and of the sketch where gradients do not fit into memory.
        no_cache: Neither read nor write the feature cache.
    """
    from pegbox.models import quiet_libraries
    from pegbox.tuning import Tuned, adapter_folder, save_posterior

    check_least(seed, 0, "--seed")
    check_least(rank, 1, "--rank")
    _check_precision(prior_precision)
    if out is not None:
        check_free(out, overwrite)
        check_writable(out / "README.md", "--out")
    quiet_libraries()
    columns: dict[str, Any] = {"texts": names(text), "label": label, "on_bad": on_bad_rows}
    how: dict[str, Any] = {"device": device, "too_long": too_long, "cache": feature_cache(not no_cache)}
    place = adapter_folder(adapter)
    if out is None:
        check_writable(place / "posterior.safetensors", "adapter")
    if (place / "pegbox.json").is_file() or not (place / "adapter_config.json").is_file():
        _check_asked(template, label_words)
        tuned = Tuned.load(place, model=model, say=say, posterior=False, **how)
    else:
        tuned = _foreign(adapter, data, model, out, how, columns, template, words(label_words))
    rows = None if data is None or tuned.posterior is not None else tuned.read(data, **columns)
    held = None if valid is None else tuned.read(valid, **columns)
    folder = (out or place).absolute()
    sure = tuned.with_posterior(
        rows,
        valid=held,
        curvature=curvature,
        part=part,
        prior_precision=prior_precision,
        prior_mean=prior_mean,
        roots=roots,
        rank=rank,
        seed=seed,
        folder=folder.parent / f".{folder.name}.curvature",
    )
    if not first():
        return  # the first of several processes writes
    written = sure.save(out, overwrite=overwrite) if out is not None else save_posterior(sure, place)
    _tell(sure, written)


def _check_precision(value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(
            "this is no precision of a prior",
            where=f"--prior-precision {value:g}",
            expected="a number above 0",
            fix="leave it out, and it is chosen by held-out rows or by the evidence",
        )


def _check_asked(template: str | None, label_words: str | None) -> None:
    for value, name in ((template, "--template"), (label_words, "--label-words")):
        if value is not None:
            raise UsageError(
                "this adapter brings its own template and label words",
                where=f"{name} {value}",
                expected="neither, but for an adapter from elsewhere",
                fix=f"leave {name} out",
            )


def _foreign(
    adapter: str,
    data: str | None,
    model: str | None,
    out: Path | None,
    how: dict[str, Any],
    columns: dict[str, Any],
    template: str | None,
    label_words: dict[str, str] | None,
) -> "Tuned":
    from pegbox.cli._options import tell_all
    from pegbox.tasks import Classify
    from pegbox.tuning import Tuned

    if data is None or out is None:
        raise UsageError(
            "an adapter from elsewhere has no task of its own, by which it could be loaded again",
            where=str(adapter),
            expected="DATA with labelled rows, and --out FOLDER for a copy with its task",
            fix=f"pegbox laplace {adapter} DATA --out {Path(adapter).name}-pegbox",
        )
    task = Classify.from_file(data, **columns, template=template, label_words=label_words)
    tell_all(task.notes)
    return Tuned.from_adapter(adapter, task=task, base=model, say=say, **how)


def _tell(tuned: "Tuned", place: Path) -> None:
    found = tuned.laplace
    if found is None:
        say(f"the closed-form fit's own posterior is in use from now on: {place}")
        return
    how = "as given" if found.chosen == "given" else f"by {found.chosen}"
    numbers = sum(rows * columns for _, rows, columns in _shapes(tuned))
    say(
        f"{found.grade} posterior of {numbers:,} numbers from {found.rows:,} rows, prior precision "
        f"{found.precision:.3g} {how}, written to {place}"
    )


def _shapes(tuned: "Tuned") -> list[tuple[str, int, int]]:
    from pegbox.tuning import uncertain

    assert tuned.laplace is not None
    return [(place.name, *place.shape) for place in uncertain(tuned, tuned.laplace.part)]
