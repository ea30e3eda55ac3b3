"""What tuning makes of etude's writing: records to text, instructions, and three public data sets.

python bench/generation.py                  measure what is missing, then write the section of docs/results.md
python bench/generation.py --part records   only this part: records, instructions or real
python bench/generation.py --render         only write the section from what is there
python bench/generation.py --quick          a smoke run: few rows, one seed, into a folder of its own

Each cell is one fit with the defaults of its method and of `pegbox.Training`; the test rows choose nothing. A
cell keeps what the model wrote, so that scores and tests are computed anew whenever the section is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import _common as common

if TYPE_CHECKING:
    from pegbox import Base, Generate, Tuned
    from pegbox.data import Conversations, Table
    from pegbox.evaluation import Estimate, Sample
    from pegbox.tuning import GeneralText

FOLDER = common.RUNS / "bench" / "generation"
PAGE = common.ROOT / "docs" / "results.md"
PARTS = ("records", "instructions", "real")
TOKENS = 64
RATIO = 0.1
METHODS = ("zero-shot", "soft-prompt", "lora", "bottleneck", "prefix", "full")
RECORDS = ("bleu", "nist", "meteor", "rouge_l", "cider", "slot_error_rate", "perplexity")
QUERIES = ("sql_match", "exact_match", "perplexity")
# Shares of rows or slots; where no resample differs, Wilson's interval of as many rows stands in.
SHARES = ("sql_match", "slot_error_rate")
LOWER = ("slot_error_rate", "perplexity")
CLOSED, FREE, HELD = ("words", "numbers", "lists"), ("advice", "sentences"), "calendar"
RIGHT, OPEN = "closed", "free"
DOMAIN, SEEN = "festivals", "restaurants"


@dataclass(frozen=True)
class Plan:
    """One fit.

    Args:
        part: ``records``, ``instructions`` or ``real``.
        data: Data set.
        method: The method.
        seed: Seed of training rows and fit; test rows are always the same.
        rows: Training rows, the 15 % to stop by among them.
        tested: Test rows of each kind, at the most.
        replay: Share of replayed general text; 0 for none.
        epochs: Most passes over the rows; ``None`` for the method's default.
    """

    part: str
    data: str
    method: str
    seed: int = 0
    rows: int = 256
    tested: int = 200
    replay: float = 0.0
    epochs: float | None = None


@dataclass(frozen=True)
class Rows:
    """What a fit is made of: the task with its training rows, and test rows by name."""

    task: Generate
    tests: Mapping[str, Conversations]


def plans(*, quick: bool) -> list[Plan]:
    """All fits in the order in which they are measured."""
    seeds = (0,) if quick else (0, 1, 2)
    made = [
        Plan("real", data, method, rows=rows, tested=tested, epochs=epochs)
        for data, rows, tested, epochs in (
            ("e2e_nlg", 300, 150, None), ("wikisql", 300, 150, None), ("instruct_mix", 160, 60, 4),
        )
        for method in ("zero-shot", "lora")
    ]  # fmt: skip
    made.append(Plan("records", SEEN, "zero-shot"))
    for seed in seeds:
        ways = [("zero-shot", 0.0)] * (not seed) + [("lora", 0.0), ("full", 0.0), ("full", RATIO)]
        made += [Plan("instructions", "open", name, seed, 300, 150, ratio) for name, ratio in ways]
        names = [name for name in METHODS if name != "zero-shot" or not seed]
        made += [Plan("records", DOMAIN, name, seed) for name in names]
    if quick:
        made = [replace(plan, rows=48, tested=12, epochs=1) for plan in made]
    return sorted(made, key=lambda plan: (plan.seed, PARTS.index(plan.part)))


# Rows


@cache
def rows_of(plan: Plan) -> Rows:
    """The task and the test rows of a plan."""
    return _MAKERS[plan.part](plan)


def _world_records(plan: Plan) -> Rows:
    from pegbox.models.etude import world

    train = _records(world.records(plan.data, plan.rows, seed=100 + plan.seed), many=False)
    test = _records(world.records(plan.data, plan.tested, seed=10_000), many=True)
    task = _task(train, label="targets", template="{record}\nText:", chat="none")
    return Rows(task, {plan.data: task.read_table(test)})


def _records(rows: Sequence[Any], *, many: bool) -> Table:
    """Rows with one target to learn from, or all of them to be measured by."""
    targets = [[row.text, *row.references] if many else row.text for row in rows]
    return _table("records", {"record": [row.record for row in rows], "targets": targets})


def _instructions(plan: Plan) -> Rows:
    """Training rows of all open families alike; no question of them is a test question for any seed."""
    task = _task(_asked(_trained(plan, plan.seed)), chat="plain")
    known = {question for seed in (0, 1, 2) for question in _trained(plan, seed)}
    tests = {RIGHT: CLOSED, OPEN: FREE, HELD: (HELD,)}
    found = {}
    for name, families in tests.items():
        rows: dict[str, str] = {}
        for family in families:
            new = _answers(family, 600, 10_000)
            own = [(asked, answer) for asked, answer in new.items() if asked not in known]
            rows |= dict(own[: plan.tested // len(families)])
        found[name] = task.read_table(_asked(rows))
    return Rows(task, found)


def _trained(plan: Plan, seed: int) -> dict[str, str]:
    families = (*CLOSED, *FREE)
    share = plan.rows // len(families)
    return {
        asked: answer
        for family in families
        for asked, answer in list(_answers(family, 2 * share, 100 + seed).items())[:share]
    }


def _answers(family: str, count: int, seed: int) -> dict[str, str]:
    """Different questions of a family with their answers."""
    from pegbox.models.etude import world

    return {row.instruction: row.response for row in world.instructions(family, count, seed=seed)}


def _asked(rows: Mapping[str, str]) -> Table:
    return _table("instructions", {"instruction": list(rows), "output": list(rows.values())})


def _real(plan: Plan) -> Rows:
    from pegbox.data import read

    folder = common.DATA / plan.data
    how: dict[str, dict[str, Any]] = {
        "e2e_nlg": {"template": "{input}\nText:", "chat": "none", "label": "target"},
        "wikisql": {
            "template": "Question: {question}\nColumns: {columns}\nSQL:", "chat": "none", "label": "sql",
        },
        "instruct_mix": {"chat": "plain"},
    }  # fmt: skip
    task = _task(read(folder / "train.jsonl"), **how[plan.data])
    test = task.read_table(read(folder / "test.jsonl"))
    assert task.rows is not None
    train = _drawn(task.rows, plan.rows, plan.seed)
    return Rows(task.with_rows(train), {plan.data: _drawn(test, plan.tested, 0)})


_MAKERS = {"records": _world_records, "instructions": _instructions, "real": _real}


def _drawn(rows: Conversations, count: int, seed: int) -> Conversations:
    """Seeded rows in random order."""
    import random

    return rows.select(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))


def _task(table: Table, *, label: str | None = None, **options: Any) -> Generate:
    from pegbox import Decoding, Generate

    return Generate.from_table(table, label=label, decoding=Decoding(max_tokens=TOKENS), **options)


def _table(source: str, columns: Mapping[str, Sequence[Any]]) -> Table:
    from pegbox.data import Table

    made = {name: tuple(cells) for name, cells in columns.items()}
    return Table(source, made, tuple(range(1, len(next(iter(made.values()))) + 1)))


# Fits


@cache
def etude() -> Base:
    """Load the base once."""
    from pegbox import load

    return load("etude")


@cache
def elsewhere() -> GeneralText:
    """What forgetting is told by: text of all genres of the world, which is ``auto`` for generation."""
    from pegbox.tuning import general_text

    text = general_text("auto", base=etude(), say=common.hush)
    assert text is not None
    return text


def measure(plan: Plan) -> common.Cell:
    """Fit, write answers to the test rows, and say the right ones."""
    from pegbox import Replay, Training, fit

    rows = rows_of(plan)
    started, begun = time.perf_counter(), time.process_time()
    tuned = fit(
        etude(),
        rows.task,
        plan.method,
        training=Training(epochs=plan.epochs),
        replay=Replay(ratio=plan.replay) if plan.replay else None,
        seed=plan.seed,
        too_long="drop",
        say=common.hush,
    )
    cpu, seconds = time.process_time() - begun, time.perf_counter() - started
    cell = {
        "cpu": cpu,
        "seconds": seconds,
        "parameters": tuned.cost.parameters,
        "learnt": tuned.cost.rows,
        "history": tuned.details.get("history"),
        "tests": {name: _written(tuned, test) for name, test in rows.tests.items()},
    }
    if plan.part == "instructions":
        found = tuned.forgetting(elsewhere(), switch_off=False, say=common.hush)
        cell |= {name: asdict(getattr(found, name)) for name in ("before", "after", "change")}
    return cell


def _written(tuned: Tuned, test: Conversations) -> dict[str, Any]:
    """What is written, and how well the right answers are said, row by row."""
    from pegbox.tuning._shapes._response_rows import ResponseRows

    begun = time.process_time()
    answers = tuned.predict(test)
    cpu = time.process_time() - begun
    prompt: Any = tuned.prompt
    module = tuned.base.model if tuned.module is None else tuned.module
    nats, tokens = ResponseRows(tuned.base, prompt.speak(test, too_long="drop")).nats(module)
    return {
        "texts": [answer.text for answer in answers],
        "cut": sum(not answer.finished for answer in answers),
        "cpu": cpu,
        "nats": nats.tolist(),
        "tokens": tokens.tolist(),
    }


# Scores


def sample(plan: Plan, cell: common.Cell, name: str, wanted: Sequence[str]) -> Sample:
    """One fit's metrics on some test rows, ready to be resampled with those of other seeds and methods.

    Exact match is called accuracy in it, which has Wilson's interval where no resample differs.
    """
    import numpy as np

    from pegbox.evaluation import Sample, parse_record
    from pegbox.evaluation._generation import _MEASURES
    from pegbox.evaluation._nlg._likelihood import likelihood
    from pegbox.evaluation._nlg._measure import Texts

    test, own = rows_of(plan).tests[name], cell["tests"][name]
    assert test.references is not None
    asked = [row[-1].content.removesuffix("\nText:") for row in test.prompts()]
    texts = Texts(tuple(own["texts"]), test.references, tuple(map(parse_record, asked)))
    found = likelihood(own["nats"], own["tokens"], None, None)[0]
    found |= {metric: _MEASURES[metric](texts) for metric in wanted if metric in _MEASURES}
    measures = {metric: one for part in found.values() for metric, one in part.measures.items()}
    kept = {_renamed(metric): measures[metric] for metric in wanted}
    right = [float(text in own) for text, own in zip(texts.predictions, texts.references, strict=True)]
    per_row = {"accuracy": np.array(right)} if "exact_match" in wanted else {}
    return Sample(
        rows=len(test),
        values={metric: one.value for metric, one in kept.items()},
        statistic=lambda weights: np.stack([one.statistic(weights) for one in kept.values()], axis=1),
        per_row=per_row,
    )


def _renamed(metric: str) -> str:
    return "accuracy" if metric == "exact_match" else metric


Found = Mapping[Plan, common.Cell]
Samples = dict[str, list["Sample"]]


def samples(found: Found, name: str, wanted: Sequence[str]) -> Samples:
    """Samples of each method's seeds; a replay is part of the method's name."""
    made: Samples = {}
    for plan, cell in found.items():
        made.setdefault(_title(plan), []).append(sample(plan, cell, name, wanted))
    return made


def _title(plan: Plan) -> str:
    return f"{plan.method}, replay {plan.replay:g}" if plan.replay else plan.method


def _seeds_of(found: Found, title: str) -> list[common.Cell]:
    return [cell for plan, cell in found.items() if _title(plan) == title]


def estimates(made: Samples) -> dict[str, dict[str, Estimate]]:
    """Means over seeds with intervals over rows and seeds, by method and metric."""
    from pegbox.evaluation import Estimate, several, wilson

    found = {title: several(runs) for title, runs in made.items()}
    for title, own in found.items():
        rows = made[title][0].rows
        for metric in [name for name in SHARES if name in own]:
            value, low, high = own[metric].value, own[metric].low, own[metric].high
            if low == high:
                low, high = wilson(value * rows, rows)
            # The part that seeds add is stretched, at times beyond what a share can be.
            own[metric] = Estimate(value, max(low, 0.0), min(high, 1.0))
    return found


def verdicts(made: Samples, metrics: Sequence[str]) -> str:
    """Best and runner-up by each metric, their difference, and whether it is real."""
    from pegbox.evaluation import compare_several, holm

    tests = []
    for metric in metrics:
        sign = -1 if metric in LOWER else 1
        means = {title: sign * fmean(run.values[metric] for run in runs) for title, runs in made.items()}
        best, second = sorted(means, key=means.__getitem__, reverse=True)[:2]
        tests.append((metric, best, second, compare_several(made[best], made[second], metric=metric)))
    lines = []
    for (metric, best, second, test), p in zip(tests, holm([one[3].p for one in tests]), strict=True):
        gap = test.difference
        real = not gap.low <= 0 <= gap.high
        lines.append(
            [_words(metric), best, second, _shown(metric, gap, sign=True), _p(p),
             f"{best} is better" if real and p < 0.05 else "no winner"]
        )  # fmt: skip
    head = ["metric", "best", "runner-up", "difference, 95 % interval", "p (Holm)", "verdict"]
    return common.markdown(head, lines)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _words(metric: str) -> str:
    known = {"bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr",
             "accuracy": "exact match"}  # fmt: skip
    return known.get(metric, metric.replace("_", " "))


def _shown(metric: str, estimate: Estimate, *, sign: bool = False) -> str:
    value = estimate.value
    digits = 3
    if metric in ("bleu", "perplexity"):
        digits = 1 if metric == "bleu" or abs(value) >= 20 else 2
    plus = "+" if sign else ""
    if abs(value) >= 1000:
        return f"{value:{plus},.0f} [{estimate.low:{plus},.0f}, {estimate.high:{plus},.0f}]"
    low, high = (f"{part:{plus}.{digits}f}" for part in (estimate.low, estimate.high))
    return f"{value:{plus}.{digits}f} [{low}, {high}]"


# The section


def _score_table(found: Found, name: str, wanted: Sequence[str], made: Samples) -> str:
    scores = estimates(made)
    metrics = [_renamed(metric) for metric in wanted]
    head = ["method", *map(_words, metrics), "cut", "parameters", "training", "seeds"]
    lines = []
    for title, values in scores.items():
        cells = _seeds_of(found, title)
        cut = fmean(cell["tests"][name]["cut"] / len(cell["tests"][name]["texts"]) for cell in cells)
        lines.append([title, *(_shown(metric, values[metric]) for metric in metrics), f"{cut:.0%}",
                      *_cost(cells)])  # fmt: skip
    return common.markdown(head, lines)


def _cost(cells: Sequence[common.Cell]) -> list[str]:
    parameters = cells[0]["parameters"]
    trained = f"{fmean(cell['cpu'] for cell in cells):.0f} s" if parameters else "-"
    return [f"{parameters:,}", trained, str(len(cells))]


def records_part(found: Found) -> list[str]:
    """Records of a held-back domain put into words, and of one that pretraining knows."""
    seen = {plan: cell for plan, cell in found.items() if plan.data == SEEN}
    found = {plan: cell for plan, cell in found.items() if plan.data == DOMAIN}
    plan = next(iter(found))
    made = samples(found, plan.data, RECORDS)
    intro = (
        f"The world's records of {plan.data}, a domain that etude's pretraining held back: {plan.rows} "
        f"training rows with one text each, of which 15 % choose where training stops, and {plan.tested} "
        "test rows with three references each. Restaurants, houses and courses in the same form (`{record}`, "
        "a line, `Text: ...`) are a small part of what etude has read; the words for music, stages, camping "
        "and tickets it has hardly seen, as zero-shot's perplexity tells. Rates and epochs are the defaults: "
        f"{_defaults()}."
    )
    parts = [f"### Records to text: {DOMAIN}, held back", intro, _score_table(found, DOMAIN, RECORDS, made)]
    parts += [_seen(seen)] if seen else []
    if len(made) > 1:
        parts += ["Between the best and the runner-up of each metric:", verdicts(made, list(RECORDS))]
    early = sum(_stopped(cell) for cell in found.values())
    trained = sum(cell["history"] is not None for cell in found.values())
    last = sum(cell["history"] is not None and not _stopped(cell) for cell in found.values())
    parts.append(
        f"Of {trained} fits {early} ended before their last step or kept an earlier one; for the other "
        f"{last} the validation loss was lowest at the very end, so that more epochs would have helped."
    )
    return [*parts, *_examples(found, made)]


def _seen(found: Found) -> str:
    """What the base alone does on records of a domain that it was pretrained on."""
    own = estimates(samples(found, SEEN, RECORDS))["zero-shot"]
    told = [f"{_words(name)} {_shown(name, own[name])}" for name in ("bleu", "slot_error_rate", "perplexity")]
    return (
        f"For scale, zero-shot on new records of {SEEN}, which pretraining knows: {', '.join(told)}. Even "
        "there etude knows the form and says frequent values instead of copying those of the record: high "
        "slot error rates are its own limit before they are a method's."
    )


def _stopped(cell: common.Cell) -> bool:
    history = cell["history"]
    return history is not None and (history["stopped_early"] or history["best_step"] < history["steps"])


def _defaults() -> str:
    from pegbox.methods import build

    told = []
    for name in METHODS[1:]:
        own = build(name).capability
        told.append(f"{name} {own.learning_rate:g} and {dict(own.defaults).get('epochs', 8)}")
    return ", ".join(told)


def _examples(found: Found, made: Samples, count: int = 3) -> list[str]:
    """What the method of most BLEU writes of the first test rows, beside the references."""
    best = max(made, key=lambda title: fmean(run.values["bleu"] for run in made[title]))
    plan, cell = next((plan, cell) for plan, cell in found.items() if _title(plan) == best)
    test = rows_of(plan).tests[plan.data]
    assert test.references is not None
    parts = [f"The first {count} test rows as {best} (most BLEU, seed {plan.seed}) writes them:"]
    texts = cell["tests"][plan.data]["texts"]
    for asked, text, own in list(zip(test.prompts(), texts, test.references, strict=True))[:count]:
        record = asked[-1].content.removesuffix("\nText:")
        lines = [f"record     {record}", f"written    {text}", *(f"reference  {one}" for one in own)]
        parts.append("\n".join(["```text", *lines, "```"]))
    return parts


def instructions_part(found: Found) -> list[str]:
    """The world's instructions: families that were trained, and the one held back."""
    plan = next(iter(found))
    right, held = (samples(found, name, ("exact_match", "perplexity")) for name in (RIGHT, HELD))
    free = samples(found, OPEN, ("rouge_l", "perplexity"))
    scores = [estimates(made) for made in (right, held, free)]
    lines = []
    for title in right:
        closed, calendar, told = (part[title] for part in scores)
        cells = _seeds_of(found, title)
        own = [_shown("accuracy", part["accuracy"]) for part in (closed, calendar)]
        own += [_shown("rouge_l", told["rouge_l"]), _shown("perplexity", told["perplexity"])]
        lines.append([title, *own, *_forgotten(cells), *_cost(cells)])
    head = ["method", "exact match", f"exact match, {HELD}", "ROUGE-L, free", "perplexity, free",
            "bits per byte after", "change", "parameters", "training", "seeds"]  # fmt: skip
    counts = {name: len(test) for name, test in rows_of(plan).tests.items()}
    intro = (
        f"{plan.rows} instructions in equal parts of {', '.join((*CLOSED, *FREE))}; 15 % choose where "
        f"training stops. Exact match: {counts[RIGHT]} other questions of {', '.join(CLOSED)}, which have "
        f"one right answer, and all {counts[HELD]} questions of {HELD}, a family that neither pretraining "
        f"nor tuning showed. Free: {counts[OPEN]} other questions of {' and '.join(FREE)}, which have many "
        "right answers, against one of them. etude was pretrained on the five families in this very form, "
        f"so that zero-shot is no stranger to them. Bits per byte: {elsewhere().bytes // 1024} KiB of all "
        'of the world\'s genres (what `forgetting("auto")` reads for a generation task; instructions are '
        "one genre of eight), with the lowest and highest limits of the seeds' intervals in brackets."
    )
    parts = ["### Instructions of the world", intro, common.markdown(head, lines)]
    if len(right) > 1:
        tests = [_against_base(right, "exact match"), _against_base(held, f"exact match, {HELD}")]
        replayed = next((title for title in right if "replay" in title), None)
        parts += [f"Differences from zero-shot: {'; '.join(tests)}."]
        parts += [_replay(found, right, replayed)] if replayed else []
    return parts


def _forgotten(cells: Sequence[common.Cell]) -> list[str]:
    after, change = (fmean(cell[name]["value"] for cell in cells) for name in ("after", "change"))
    if cells[0]["history"] is None:
        return [f"{after:.3f}", "0"]
    low, high = (pick(cell["change"][side] for cell in cells) for pick, side in ((min, "low"), (max, "high")))
    return [f"{after:.3f}", f"{change:+.4f} [{low:+.4f}, {high:+.4f}]"]


def _against_base(made: Samples, name: str) -> str:
    from pegbox.evaluation import compare_several

    told = []
    for title, runs in made.items():
        if title != "zero-shot":
            test = compare_several(runs, made["zero-shot"], metric="accuracy")
            real = (
                ""
                if not test.difference.low <= 0 <= test.difference.high and test.p < 0.05
                else " (no winner)"
            )
            told.append(f"{title} {_shown('accuracy', test.difference, sign=True)}{real}")
    return f"{name}: {', '.join(told)}"


def _replay(found: Found, made: Samples, title: str) -> str:
    from pegbox.evaluation import compare_several

    plain = title.partition(",")[0]
    test = compare_several(made[title], made[plain], metric="accuracy")
    pairs = zip(_seeds_of(found, title), _seeds_of(found, plain), strict=False)
    gaps = [one["change"]["value"] - other["change"]["value"] for one, other in pairs]
    return (
        f"With replay less without ({plain}): bits per byte "
        f"{', '.join(f'{gap:+.4f}' for gap in gaps)} by seed, exact match "
        f"{_shown('accuracy', test.difference, sign=True)}."
    )


def real_part(found: Found) -> list[str]:
    """Public data sets, on which so small a model is weak."""
    parts = [
        "### Public data: E2E, WikiSQL, instructions",
        "etude has 4.5 million parameters, was pretrained on its own world alone and reads English of "
        "elsewhere in fragments of words: these numbers show that training and scoring work, not what a "
        "language model can do. One seed; intervals over the test rows alone.",
    ]
    for data, wanted in (
        ("e2e_nlg", RECORDS),
        ("wikisql", QUERIES),
        ("instruct_mix", ("rouge_l", "perplexity")),
    ):
        own = {plan: cell for plan, cell in found.items() if plan.data == data}
        if not own:
            continue
        plan = list(own)[-1]
        rate = f", at most {plan.epochs:g} epochs" if plan.epochs else ""
        cell = own[plan]
        parts += [
            f"#### {data}",
            f"{plan.rows} training rows ({plan.rows - cell['learnt']} of them to stop by{rate}), "
            f"{plan.tested} test rows.{_left_out(plan)}",
            _score_table(own, data, wanted, samples(own, data, wanted)),
        ]
        if cell["history"]:
            parts.append(_curve(plan, cell["history"]))
    return parts


def _left_out(plan: Plan) -> str:
    """How many rows do not fit into the context, which are not learnt from and not in the perplexity."""
    rows = rows_of(plan)
    prompt: Any = etude().prepare(rows.task.with_rows(None))
    parts = {"training": rows.task.rows, "test": rows.tests[plan.data]}
    left = {name: len(prompt.speak(part, too_long="drop").left_out) for name, part in parts.items()}
    if not any(left.values()):
        return ""
    counts = " and ".join(f"{count} {name} rows" for name, count in left.items())
    return f" {counts} do not fit into the context and are left out of training and perplexity."


def _curve(plan: Plan, history: Mapping[str, Any]) -> str:
    """Losses by step: all validations, and the mean training loss since the one before."""
    train, valid = history["train_losses"], history["valid_losses"]
    each = history["steps"] / max(history["epochs"], 1e-9)
    lines, last = [], 0
    for step, loss in valid:
        own = [value for at, value in train if last < at <= step]
        lines.append([f"{step / each:.1f}", str(step), f"{fmean(own):.3f}" if own else "-", f"{loss:.3f}"])
        last = step
    kept = history["best_step"]
    told = f"Losses of {plan.method} in nats per token of an answer; the model keeps step {kept}:"
    return f"{told}\n\n{common.markdown(['epoch', 'step', 'training', 'validation'], lines)}"


def report(found: Found, wanted: int) -> str:
    """The whole section."""
    intro = (
        "What etude writes after tuning, greedily, at most "
        f"{TOKENS} tokens; metrics and their ranges: [generation](generation.md). Numbers are means over the "
        "seeds with 95 % intervals over rows and seeds (`pegbox.evaluation.several`); a difference is called "
        "real where its paired interval does not hold zero and Holm's p is below 0.05. cut: answers that did "
        "not end within the most tokens. training: processor time of a fit on one thread. A seed draws other "
        "training rows, held-out rows and initial values; the test rows stay. Nothing was tuned on them."
    )
    head = "\n".join(
        [
            "- Command: `python bench/generation.py`.",
            f"- Seeds: {', '.join(map(str, sorted({plan.seed for plan in found})))} (public data: 0).",
            *common.provenance(found.values()),
        ]
    )
    parts = ["## Generation", intro, head]
    if len(found) < wanted:
        parts.append(f"{len(found)} of {wanted} fits are measured so far; the others are missing here.")
    makers = {"records": records_part, "instructions": instructions_part, "real": real_part}
    for name, make in makers.items():
        own = {plan: cell for plan, cell in found.items() if plan.part == name}
        own = dict(sorted(own.items(), key=lambda item: METHODS.index(item[0].method)))
        parts += make(own) if own else []
    return "\n\n".join(parts)


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="measure only these")
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    given = common.parse(parser)
    store = common.Cells(given.out / "cells", given.fresh)
    wanted, found = plans(quick=given.quick), {}
    with common.threads(given.threads):
        for plan in wanted:
            key = asdict(plan) | {"tokens": TOKENS}
            idle = given.render or plan.part not in given.part
            cell = store.find(key) if idle else store.get(key, partial(measure, plan))
            if cell is not None:
                found[plan] = cell
                common.log(f"{plan}: {cell['cpu']:.0f} s")
        common.write_section(given.page, "generation", report(found, len(wanted)))


if __name__ == "__main__":
    main()
