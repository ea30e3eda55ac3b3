from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import check_least, command, names, parse_time, say, tell_all
from pegbox.cli._seeds import several_seeds
from pegbox.cli._tuning import method_options, task_of
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.comparison import Comparison, Rung


def compare(
    data: str,
    *,
    model: str = "etude",
    out: Path = Path("pegbox-compare"),
    methods: str | None = None,
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    task: Literal["auto", "classify", "choose", "tag"] = "auto",
    text: str | None = None,
    label: str | None = None,
    template: str | None = None,
    label_words: str | None = None,
    readout: Literal["words", "head"] = "words",
    test: str | None = None,
    holdout: float = 0.2,
    split: str | None = None,
    metric: str | None = None,
    worth: float = 0.01,
    patience: int = 3,
    budget: str | None = None,
    forgetting: str = "auto",
    also: str | None = None,
    no_curve: bool = False,
    on_bad_rows: Literal["error", "drop", "repair"] = "error",
    too_long: Literal["shorten", "error"] = "shorten",
    max_length: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    quantise: Literal["nf4"] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    seeds: int | str = 3,
    engine: Literal["local", "ray"] = "local",
    overwrite: bool = False,
) -> None:
    """Climb a ladder of methods on your rows, cheapest first, and say which is worth its cost.

    Args:
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or hub id, with labelled rows.
        model: Hub id, folder, etude or etude-masked.
        out: Folder for the report, the tuned models and all that is measured; the same command goes on there
            where it was stopped.
        methods: Methods and baselines with commas, in the order to climb; by default majority, bag-of-words
            and all methods but qlora, full last.
        options: Options of methods by name; for example --options.lora.rank 4.
        training: How gradient methods train, for example --training.epochs 3.
        task: What is asked of a row: classify (one label), choose (one of its own options) or tag (entities);
            auto tells by the columns.
        text: Text column, or two with a comma for pairs; guessed when not given.
        label: Label column; guessed when not given.
        template: Template such as '{text} It was {answer}.'; derived when not given.
        label_words: Words such as positive=great,negative=terrible; derived when not given.
        readout: Answer by label words, or by a linear head on the plain texts.
        test: File to be scored on; else a share of the rows is held out.
        holdout: Share of the rows that is held out to be scored on, where no test file is given.
        split: Split of a hub data set.
        metric: What decides: accuracy, macro_f1, nll or brier; f1 for tags.
        worth: Gain that a rung must show for each tenfold of its time, and at least once; 0.01 is one point.
        patience: Trained rungs in a row not worth their cost, after which the climb ends; 0 climbs all.
        budget: Time such as 10m or 1h; a rung that would not fit into what is left is not climbed.
        forgetting: General text to tell forgetting by: a file, off, or auto for what etude was pretrained on.
        also: Files with other labelled tasks, with commas, that each rung is asked before and after.
        no_curve: Measure no learning curve.
        on_bad_rows: What to do with rows without text or label; repair makes stray I- tags B-.
        too_long: What to do with texts that do not fit into the context.
        max_length: Upper limit on the context in tokens.
        dtype: Number format of the base.
        device: auto, cpu, cuda or mps.
        quantise: nf4 keeps the base's linear layers in 4 bits; needs the extra qlora.
        revision: Revision of a hub model.
        trust_remote_code: Let code that comes with a hub model run.
        seed: The first seed, and that of the rows held out.
        seeds: How many seeds each rung is fitted under, or which, such as 0,1,2.
        engine: ray fits rungs and seeds at the same time on a Ray cluster; needs the extra ray.
        overwrite: Replace another comparison in the output folder.
    """
    from pegbox.comparison import compare as climb
    from pegbox.comparison import planned
    from pegbox.models import load, quiet_libraries
    from pegbox.reports import rung_line, write_report
    from pegbox.tuning import Training, labelled_rows

    wanted = _checked(seed, seeds, holdout, test)
    seconds, settings = parse_time(budget, "--budget") if budget else None, Training.of(training or {})
    quiet_libraries()
    asked = task_of(
        data, task, text=text, label=label, template=template, label_words=label_words, readout=readout,
        split=split, on_bad=on_bad_rows,
    )  # fmt: skip
    rungs = None if methods is None else names(methods)
    how: dict[str, Any] = {
        "folder": out, "options": method_options(options), "seeds": wanted, "metric": metric, "worth": worth,
        "patience": patience, "budget": seconds, "engine": engine,
    }  # fmt: skip
    # What is wrong there is said before a model is loaded.
    planned(asked, rungs, **how)
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise,
    )  # fmt: skip
    found = climb(
        base, asked, rungs, **how,
        test=labelled_rows(asked, test, on_bad=on_bad_rows, say=say) if test else None,
        holdout=holdout, training=settings, split_seed=seed, forgetting=forgetting, also=names(also),
        curve=not no_curve, too_long=too_long, overwrite=overwrite,
        findings=_findings(data, split, task, names(text), label, test), command=command(),
        done=lambda rung: say(rung_line(rung, metric)), say=say,
    )  # fmt: skip
    _print(found, write_report(found, out), out)


def _checked(seed: int, seeds: int | str, share: float, test: str | None) -> tuple[int, ...]:
    """The seeds, once all that concerns seeds and the rows held out is checked."""
    check_least(seed, 0, "--seed")
    if test is None and not 0 < share < 1:
        raise UsageError(
            "the share to hold out is no share",
            where=f"--holdout {share}",
            expected="above 0 and below 1, or --test FILE",
            fix="leave --holdout out",
        )
    return several_seeds(seeds, first=seed, least=1) or (seed,)


def _findings(
    data: str, split: str | None, task: str, texts: tuple[str, ...], label: str | None, test: str | None
) -> list[str]:
    """What the data doctor says of the rows."""
    from pegbox.cli._check import examine
    from pegbox.data import read

    others = {"test": read(test)} if test else {}
    return examine(read(data, split=split), task, texts, label, others).lines()


def _print(comparison: "Comparison", report: Path, out: Path) -> None:
    from rich.console import Console

    from pegbox.reports import comparison_table

    console = Console()
    console.print(comparison_table(comparison))
    for sentence in comparison.verdict:
        console.print(sentence, markup=False, highlight=False)
    say(f"the report is {report}; all that was measured lies in {out}")
    tell_all(_use(comparison, out))


def _use(comparison: "Comparison", out: Path) -> list[str]:
    """How the recommended rung is used; where no model of it lies there, the best of those that do."""
    from pegbox.reports import LOWER

    best = comparison.best
    if (folder := _folder(best)) is not None:
        other = "" if folder == best.typical.folder else " (whole models are kept of the first seed alone)"
        return [f"to use the recommended rung: pegbox predict {out / folder} FILE{other}"]
    found = [f"{best.name} is a baseline, of which no model is kept: pegbox predict cannot use it"]
    sign = 1 if comparison.metric in LOWER else -1
    kept = [rung for rung in comparison.rungs if _folder(rung) is not None]
    if kept:
        # Of equals the cheapest, which comes first.
        usable = min(kept, key=lambda rung: sign * rung.metrics[comparison.metric].value)
        score = f"{comparison.metric} {usable.metrics[comparison.metric]}"
        use = f"pegbox predict {out / str(_folder(usable))} FILE"
        found.append(f"the best that can be used is {usable.name} ({score}): {use}")
    return found


def _folder(rung: "Rung") -> str | None:
    """Where a tuned model of a rung lies: the typical one, or else that of another seed."""
    folders = [rung.typical.folder, *(cell.folder for cell in rung.cells)]
    return next((folder for folder in folders if folder), None)
