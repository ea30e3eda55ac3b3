from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import (
    check_least,
    check_writable,
    emit,
    emit_result,
    feature_cache,
    names,
    parse_size,
    parse_time,
    say,
)
from pegbox.cli._tuning import method_options, task_of
from pegbox.errors import RunError, UsageError, check_names

if TYPE_CHECKING:
    from pegbox.comparison import Advice
    from pegbox.methods import Method


def advise(
    data: str,
    *,
    model: str = "etude",
    memory: str | None = None,
    time: str | None = None,
    methods: str | None = None,
    no_pilot: bool = False,
    short_lora: bool = False,
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    task: Literal["auto", "classify", "choose", "tag"] = "auto",
    text: str | None = None,
    label: str | None = None,
    template: str | None = None,
    label_words: str | None = None,
    readout: Literal["words", "head"] = "words",
    split: str | None = None,
    on_bad_rows: Literal["error", "drop", "repair"] = "error",
    max_length: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    quantise: Literal["nf4"] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    no_cache: bool = False,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
) -> None:
    """Say which method to begin with on your rows, what each would take, and how sure that is.

    Args:
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or hub id, with labelled rows.
        model: Hub id, folder, etude or etude-masked.
        memory: Memory that may be used, such as 8GB or 512MiB; no limit when not given.
        time: Time that a fit may take, such as 90s, 20m or 1h; no limit when not given.
        methods: Methods to choose from, with commas; all when not given.
        no_pilot: Do not measure majority, zero-shot, the closed form and its learning curve on the rows.
        short_lora: Train LoRA, as it is by default, for a few steps too, to see whether it does better.
        options: Options of methods by their names, for example --options.lora.rank 4.
        training: How gradient methods would be trained, for example --training.epochs 3.
        task: What is asked of a row: classify (one label), choose (one of its own options) or tag (entities);
            auto tells by the columns.
        text: Text column, or two with a comma for pairs; guessed when not given.
        label: Label column; guessed when not given.
        template: Template such as '{text} It was {answer}.'; derived when not given.
        label_words: Words such as positive=great,negative=terrible; derived when not given.
        readout: Answer by label words, or by a linear head on the plain texts.
        split: Split of a hub data set.
        on_bad_rows: What to do with rows without text or label; repair makes stray I- tags B-.
        max_length: Upper limit on the context in tokens.
        dtype: Number format of the base.
        device: auto, cpu, cuda or mps.
        quantise: nf4 keeps the base's linear layers in 4 bits; needs the extra qlora.
        revision: Revision of a hub model.
        trust_remote_code: Let code that comes with a hub model run.
        seed: Seed of samples, folds and the short LoRA.
        no_cache: Neither read nor write the feature cache.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
    """
    from pegbox.comparison import advise as advised
    from pegbox.models import load, quiet_libraries
    from pegbox.tuning import Training

    check_least(seed, 0, "--seed")
    check_writable(out, "--out")
    _check_pilot(no_pilot=no_pilot, short_lora=short_lora)
    allowed = parse_size(memory) if memory else None
    seconds = parse_time(time) if time else None
    settings = Training.of(training or {})
    wanted = _wanted(None if methods is None else names(methods), options)
    quiet_libraries()
    asked = task_of(
        data, task, text=text, label=label, template=template, label_words=label_words, readout=readout,
        split=split, on_bad=on_bad_rows,
    )  # fmt: skip
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise,
    )  # fmt: skip
    found = advised(
        base, asked, memory=allowed, seconds=seconds, methods=wanted, pilot=not no_pilot,
        short_lora=short_lora, training=settings, seed=seed, cache=feature_cache(not no_cache), say=say,
    )  # fmt: skip
    emit_result(found.to_json(), format, out, lambda: _print(found))
    if found.method is None:
        raise _nothing(memory, time)


def _wanted(named: tuple[str, ...] | None, options: dict[str, Any] | None) -> "Sequence[Method | str] | None":
    """The methods to choose from, those with options of their own made with them."""
    from pegbox.methods import build, methods

    given = method_options(options)
    if given is None:
        return named
    among = tuple(methods()) if named is None else named
    check_names(given, among, "options are given for {!r}, which is not chosen from", where="--options.{}")
    return [build(name, given[name]) if name in given else name for name in among]


def _check_pilot(*, no_pilot: bool, short_lora: bool) -> None:
    if no_pilot and short_lora:
        raise UsageError(
            "the short LoRA is a part of the pilot, and the pilot is left out",
            where="--short-lora with --no-pilot",
            expected="one of the two, or neither",
            fix="leave --no-pilot out to measure, or --short-lora not to",
        )


def _nothing(memory: str | None, time: str | None) -> RunError:
    """What ends a call whose answer is that no method fits."""
    asked = {"--memory": memory, "--time": time}
    budgets = [f"{name} {value}" for name, value in asked.items() if value]
    more = f"allow more than {' and '.join(budgets)}, or take a smaller model" if budgets else ""
    return RunError(
        "no method fits", where=" ".join(budgets), fix=more or "choose other --methods, or another --model"
    )


def _print(found: "Advice") -> None:
    from rich.console import Console

    from pegbox.reports import offers_table, pilot_table

    console = Console()
    console.print(offers_table(found))
    tried = pilot_table(found)
    if tried is not None:
        console.print()
        console.print(tried)
    emit("\n" + "\n".join(found.lines()) + "\n")
