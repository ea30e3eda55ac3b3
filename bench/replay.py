"""What replay keeps and what it costs: accuracy on new reviews, bits per byte of all that etude read before.

python bench/replay.py            the whole measurement; goes on where it was stopped
python bench/replay.py --render   only write the report from what is measured
python bench/replay.py --quick    a smoke run: one seed, few rows

Writes its section of docs/forgetting.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from statistics import fmean
from typing import TYPE_CHECKING

import _common as common

if TYPE_CHECKING:
    from pegbox import Base, FeatureCache
    from pegbox.tuning import GeneralText, OtherTask

FOLDER = common.RUNS / "bench" / "replay"
PAGE = common.ROOT / "docs" / "forgetting.md"
DOMAIN = "hotels"
RATIOS = (0.0, 0.05, 0.1, 0.25, 0.5)
# Each method at its default rate, and at one so high that it forgets: ten times (LoRA, full) and more.
SETUPS = (("full", 1e-4), ("full", 1e-3), ("full", 3e-3), ("lora", 1e-3), ("lora", 1e-2))
TEXT = 1 << 15


READING = """What we read from it (few seeds: no more than tendencies):

- At their default rates neither full fine-tuning nor LoRA forgets anything that counts here. Replay then
  only goes on with pretraining: the other text gets a little cheaper, and accuracy stays about the same.
- At the highest rate of each, where the model does forget, replay takes about half of it away or more on
  average over the seeds, LoRA's the more the larger the share. One seed of full fine-tuning, which forgets
  little without it, forgets more with it. Accuracy on the task goes up and down without order.
- Replay can make it worse. Full fine-tuning at ten times its default rate forgets more with it than without:
  label words leave most rows of the tied embedding without any gradient, and the language loss gives each
  of them one, however small, which AdamW turns into a step of full size. Two fits show it (at the end).
  Lower the rate before you replay."""


@dataclass(frozen=True)
class Plan:
    """One fit.

    Args:
        method: The method.
        rate: Peak learning rate.
        ratio: Share of replayed windows; 0 for none.
        seed: Seed of training rows and fit; test rows and text are always the same.
        rows: Training rows, those to stop by among them.
        tested: Test rows.
        epochs: Most passes over the rows.
    """

    method: str
    rate: float
    ratio: float
    seed: int
    rows: int
    tested: int
    epochs: int


@cache
def etude() -> Base:
    """Load the base once."""
    from pegbox import load

    return load("etude")


@cache
def answers() -> FeatureCache:
    """Keep what the base says of the test rows, which all fits are compared with."""
    from pegbox import FeatureCache

    return FeatureCache(FOLDER / "features")


@cache
def elsewhere() -> tuple[GeneralText, OtherTask]:
    """What forgetting is told by: text of the world's other genres, and the topics of news briefs."""
    from _world import world_rows
    from pegbox.tuning import OtherTask, general_text

    text = general_text(base=etude(), task=world_rows("reviews", DOMAIN, 2, 0).task, size=TEXT)
    news = world_rows("news", "city", 200, seed=100)
    assert text is not None
    return text, OtherTask.of(news.task.with_rows(news.rows))


def measure(plan: Plan) -> common.Cell:
    """Fit, and measure what was learnt and what was forgotten."""
    from _world import world_rows
    from pegbox import Replay, Training, fit

    train = world_rows("reviews", DOMAIN, plan.rows, seed=plan.seed)
    test = world_rows("reviews", DOMAIN, plan.tested, seed=10_000)
    text, news = elsewhere()
    started, begun = time.perf_counter(), time.process_time()
    tuned = fit(
        etude(),
        train.task,
        plan.method,
        rows=train.rows,
        training=Training(epochs=plan.epochs, learning_rate=plan.rate),
        replay=Replay(ratio=plan.ratio) if plan.ratio else None,
        seed=plan.seed,
        cache=answers(),
        say=common.hush,
    )
    seconds, cpu = time.perf_counter() - started, time.process_time() - begun
    found = tuned.forgetting(text, [news], switch_off=False, say=common.hush)
    scores = tuned.evaluate(test.rows, resamples=1)
    return {
        "accuracy": scores.metrics["accuracy"].value,
        "nll": scores.metrics["nll"].value,
        "before": found.before.value,
        "change": found.change.value,
        "news": found.also[0].after.value,
        "news_before": found.also[0].before.value,
        "steps": tuned.details["history"]["steps"],
        "best_step": tuned.details["history"]["best_step"],
        "seconds": seconds,
        "cpu": cpu,
    }


def embeddings(ratio: float, rows: int) -> common.Cell:
    """Fit all weights for one epoch at a high rate, and put the base's embeddings back afterwards."""
    import torch

    from _world import world_rows
    from pegbox import Replay, Training, fit

    train, valid = (world_rows("reviews", DOMAIN, count, seed=seed) for count, seed in ((rows, 0), (20, 50)))
    training = Training(epochs=1, learning_rate=1e-3, patience=0, evaluations_per_epoch=1)
    tuned = fit(
        etude(),
        train.task,
        "full",
        rows=train.rows,
        valid=valid.rows,
        training=training,
        replay=Replay(ratio=ratio) if ratio else None,
        say=common.hush,
    )
    own, base = (
        model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
        for model in (tuned.module, etude().model)
    )
    text = elsewhere()[0]
    change = tuned.forgetting(text, switch_off=False).change.value
    moved = float((own != base).any(1).float().mean())
    with torch.no_grad():
        own.copy_(base)
    back = tuned.forgetting(text, switch_off=False).change.value
    return {"moved": moved, "change": change, "back": back}


def base_alone(tested: int) -> common.Cell:
    """Measure what the base answers without tuning."""
    from _world import world_rows
    from pegbox import fit

    test = world_rows("reviews", DOMAIN, tested, seed=10_000)
    tuned = fit(etude(), test.task, "zero-shot", rows=test.rows, say=common.hush)
    return {"accuracy": tuned.evaluate(test.rows, resamples=1).metrics["accuracy"].value}


def report(
    found: Mapping[Plan, common.Cell],
    base: common.Cell,
    rows: Mapping[float, common.Cell],
    setups: Sequence[tuple[str, float]],
    wanted: int,
) -> str:
    """Return the section in Markdown."""
    plans = list(found)
    head = ["method", "replay", "accuracy", "bits per byte", "change", "news", "time", "seeds"]
    first = next(iter(found.values()))
    lines = [["none (zero-shot)", "-", f"{base['accuracy']:.3f}", f"{first['before']:.3f}", "0",
              f"{first['news_before']:.3f}", "-", "-"]]  # fmt: skip
    for method, rate in setups:
        for ratio in sorted({plan.ratio for plan in plans}):
            cells, plain = (_by_seed(found, method, rate, share) for share in (ratio, 0.0))
            if cells:
                lines.append([f"{method}, {rate:g}", f"{ratio:g}" if ratio else "none", *_line(cells, plain)])
    plan = plans[0]
    about = (
        f"etude, {plan.rows} reviews of {DOMAIN}, of which 15 % to stop by, at most {plan.epochs} epochs; "
        f"method and learning rate (the first of each method is its default); means over the seeds, with "
        f"lowest and highest in brackets. Accuracy: {plan.tested} other reviews of {DOMAIN}. Bits per byte: "
        f"{TEXT // 1024} KiB of the world's other genres. News: accuracy on 200 news briefs, asked in label "
        "words. Time: processor time of a step, with replay over without."
    )
    return "\n\n".join(
        [
            "## Measured: what replay keeps, and what it costs",
            about,
            *(
                [f"{len(found)} of {wanted} fits are measured so far; the others are missing here."]
                if len(found) < wanted
                else []
            ),
            "\n".join(
                [
                    "- Command: `python bench/replay.py`.",
                    *common.provenance([*found.values(), base, *rows.values()]),
                ]
            ),
            common.markdown(head, lines),
            *([READING] if len(plans) > len(RATIOS) else []),
            "\n".join(_moved(ratio, cell) for ratio, cell in rows.items()),
        ]
    )


def _moved(ratio: float, cell: common.Cell) -> str:
    return (
        f"- full at 0.001 for one epoch, seed 0, {f'replay {ratio:g}' if ratio else 'no replay'}: "
        f"{cell['moved']:.0%} of the rows of the tied embedding moved; bits per byte {cell['change']:+.4f}, "
        f"{cell['back']:+.4f} once the base's rows are put back."
    )


def _by_seed(
    found: Mapping[Plan, common.Cell], method: str, rate: float, ratio: float
) -> dict[int, common.Cell]:
    wanted = (method, rate, ratio)
    return {plan.seed: cell for plan, cell in found.items() if (plan.method, plan.rate, plan.ratio) == wanted}


def _line(cells: Mapping[int, common.Cell], plain: Mapping[int, common.Cell]) -> list[str]:
    """One row of the table; steps are compared with those of the same seed without replay."""
    change = [cell["change"] for cell in cells.values()]
    steps = [_step(cell) / _step(plain[seed]) for seed, cell in cells.items() if seed in plain]
    return [
        _spread([cell["accuracy"] for cell in cells.values()]),
        f"{fmean(cell['before'] + cell['change'] for cell in cells.values()):.3f}",
        f"{fmean(change):+.4f} ({min(change):+.4f} to {max(change):+.4f})",
        f"{fmean(cell['news'] for cell in cells.values()):.3f}",
        f"{common.median(steps):.2f}" if steps else "-",
        str(len(cells)),
    ]


def _step(cell: common.Cell) -> float:
    seconds: float = cell["cpu"] / cell["steps"]
    return seconds


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--tested", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    given = common.parse(parser)
    ratios: Sequence[float] = RATIOS
    setups: Sequence[tuple[str, float]] = SETUPS
    if given.quick:
        given.rows, given.tested, given.epochs, given.seeds = 48, 40, 1, 1
        ratios, setups = (0.0, 0.25), SETUPS[:1]
    plans = [
        Plan(method, rate, ratio, seed, given.rows, given.tested, given.epochs)
        for seed in range(given.seeds)
        for method, rate in setups
        for ratio in ratios
    ]
    store = common.Cells(given.out / "cells", given.fresh)
    with common.threads(given.threads):
        key = {"base": "etude", "tested": given.tested}
        alone = store.find(key) if given.render else store.get(key, partial(base_alone, given.tested))
        found = {}
        for plan in plans:
            key = {**asdict(plan), "domain": DOMAIN, "text": TEXT}
            cell = store.find(key) if given.render else store.get(key, partial(measure, plan))
            if cell is not None:
                found[plan] = cell
                common.log(f"{plan}: {cell['accuracy']:.3f}, {cell['change']:+.4f}, {cell['cpu']:.0f} s")
        moved = {}
        for ratio in (0.0, 0.25):
            key = {"embeddings": ratio, "rows": given.rows, "text": TEXT}
            cell = store.find(key) if given.render else store.get(key, partial(embeddings, ratio, given.rows))
            if cell is not None:
                moved[ratio] = cell
    assert alone is not None
    common.write_section(given.page, "replay", report(found, alone, moved, setups, len(plans)))


if __name__ == "__main__":
    main()
