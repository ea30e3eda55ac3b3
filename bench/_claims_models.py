"""Claims of the pages about models, data and answers: what each measures and how it is told."""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _common as common

BAD_WORDS = ("the", "and")


def label_words(quick: bool) -> common.Cell:
    """Search label words on draws of the rows, and score found and had words on the rows not drawn."""
    import torch

    import pegbox
    from _world import world_rows
    from pegbox.models import extract, slot_logits

    draws, sizes = (2, (16,)) if quick else (12, (16, 64, 256))
    made = world_rows("reviews", "hotels", 200 if quick else 2000, seed=5)
    gold = torch.tensor(made.task.gold(made.rows))
    lines = []
    for model, words in (("etude", made.task.label_words), ("etude-masked", BAD_WORDS)):
        base = pegbox.load(model)
        task = replace(made.task, label_words=words)
        prompt = base.prepare(task)
        hidden = extract(base, prompt, prompt.encode(made.rows), say=common.hush, need_logits=False).hidden

        def right(chosen: tuple[str, ...], unseen: Any, base: Any = base, hidden: Any = hidden) -> float:
            tokens = base.prepare(replace(made.task, label_words=chosen)).tokens
            return float(
                (slot_logits(base, hidden[unseen], tokens).argmax(1) == gold[unseen]).double().mean()
            )

        for size in sizes:
            scores: dict[str, list[float]] = {"had": [], "found": [], "higher": [], "rule": []}
            for draw in range(draws):
                drawn = common.part(made.rows, size, draw)
                unseen = torch.ones(len(made.rows), dtype=torch.bool)
                unseen[torch.tensor(drawn.numbers) - 1] = False
                found = pegbox.search_label_words(base, task, drawn, seed=draw, say=common.hush)
                had, best = right(found.given, unseen), right(found.found, unseen)
                seen = found.cross_validated
                scores["had"].append(had)
                scores["found"].append(best)
                scores["higher"].append(best if seen is not None and seen > found.given_accuracy else had)
                scores["rule"].append(best if found.taken else had)
            means = {name: sum(each) / draws for name, each in scores.items()}
            lines.append(
                {"model": f"{model}, {'/'.join(words or ())}", "rows": size, "draws": draws, **means}
            )
    return {"lines": lines}


def told_label_words(cell: common.Cell) -> str:
    """The table."""
    header = ["model, words it had", "rows", "had", "best found", 'by "higher"', "by the rule"]
    lines = [
        [line["model"], str(line["rows"])] + [f"{line[k]:.3f}" for k in ("had", "found", "higher", "rule")]
        for line in cell["lines"]
    ]
    intro = (
        f"Accuracy of label words on the hotel reviews, of 2,000, that were not drawn for the search; means "
        f'over {cell["lines"][0]["draws"]} draws. "Higher" takes the found words where they are better in '
        "cross-validation, the rule where they are better by more than one standard error."
    )
    return f"{intro}\n\n{common.markdown(header, lines)}"


def pooling(quick: bool) -> common.Cell:
    """Accuracy of a closed-form head on the mean and on the first token of the masked model."""
    import pegbox
    from _world import world_rows

    base = pegbox.load("etude-masked")
    found: dict[str, list[float]] = {"mean": [], "cls": []}
    for seed in range(2 if quick else 15):
        train = world_rows("reviews", "hotels", 256, seed=100 + seed)
        test = world_rows("reviews", "hotels", 100 if quick else 400, seed=200 + seed)
        task = pegbox.Classify(labels=train.task.labels)
        for way, kept in found.items():
            tuned = pegbox.fit(
                base.headed(way),  # type: ignore[arg-type]
                task,
                "closed-form",
                rows=train.rows,
                say=common.hush,
            )
            kept.append(float(tuned.evaluate(test.rows).metrics["accuracy"].value))
    return found


def told_pooling(cell: common.Cell) -> str:
    """Two sentences."""
    mean, first = (sum(cell[way]) / len(cell[way]) for way in ("mean", "cls"))
    over = [ours - theirs for ours, theirs in zip(cell["mean"], cell["cls"], strict=True)]
    error = statistics.stdev(over) / len(over) ** 0.5
    return (
        f"Closed-form head on etude-masked, 256 hotel reviews, 400 others to measure, means over "
        f"{len(over)} draws: accuracy {mean:.3f} on the mean of the tokens, {first:.3f} on the first token. "
        f"The difference is {mean - first:+.3f} ± {error:.3f} (one standard error over draws)."
    )


def untuned(quick: bool) -> common.Cell:
    """Accuracy of the embedded models without tuning, by a page's prompts."""
    import pegbox
    from pegbox.data import Examples
    from pegbox.models.etude import world

    count = 60 if quick else 600
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("hotels", "{text} It was {answer}.", {"label_words": ("terrible", "great")}),
        ("hotels", "{text}\nSentiment: {answer}", {}),
        ("bicycles", "{text} It was {answer}.", {"label_words": ("terrible", "great")}),
        ("machines", "{text} Question: {question} Answer: {answer}", {}),
        ("people", "{text} Question: {question} Answer: {answer}", {}),
    )
    lines = []
    for model in ("etude", "etude-masked"):
        base = pegbox.load(model)
        for domain, template, more in asked:
            if "question" in template:
                told = [(row.text, row.closed, row.label) for row in world.passages(domain, count, seed=7)]
                fields = {"text": tuple(row[0] for row in told), "question": tuple(row[1] for row in told)}
                labels: tuple[str, ...] = ("no", "yes")
            else:
                said = [(row.text, row.label) for row in world.reviews(domain, count, seed=7)]
                fields, labels = {"text": tuple(row[0] for row in said)}, ("negative", "positive")
                told = [(text, "", label) for text, label in said]
            task = pegbox.Classify(
                labels=labels,
                fields=tuple(fields),
                template=template,
                **{"label_words": labels, **more},
            )
            rows = Examples(domain, fields, tuple(row[2] for row in told), tuple(range(1, count + 1)))
            scores = pegbox.fit(base, task, "zero-shot", rows=rows, say=common.hush).evaluate(rows)
            lines.append([model, domain, template.replace("\n", "\\n"), str(scores.metrics["accuracy"])])
    return {"lines": lines, "rows": count}


def told_untuned(cell: common.Cell) -> str:
    """The table."""
    lines = [[model, domain, f"`{template}`", score] for model, domain, template, score in cell["lines"]]
    return (
        f"The embedded models without tuning, {cell['rows']} rows each (machines is held back from "
        "pretraining as hotels and bicycles are, people is not):\n\n"
        + common.markdown(["model", "domain", "prompt", "accuracy"], lines)
    )


def doctor(quick: bool) -> common.Cell:
    """Time of the data doctor on random rows of 20 words."""
    import random

    from pegbox import data

    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5000)]
    found = {}
    for count in (1000,) if quick else (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.csv"
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(["text", "label"])
                writer.writerows(
                    [" ".join(dice.choices(words, k=20)), dice.choice("ab")] for _ in range(count)
                )
            table = data.read(path)
            columns = data.find_columns(table, texts=("text",), label="label")
            started = time.process_time()
            data.check(table, columns)
            found[f"{count:,}"] = time.process_time() - started
    return {"seconds": found}


def told_doctor(cell: common.Cell) -> str:
    """One sentence."""
    told = " and ".join(f"{common.seconds(time)} for {rows} rows" for rows, time in cell["seconds"].items())
    return f"`pegbox.data.check` takes {told} of 20 random words, on one core (processor time)."


def curve(quick: bool) -> common.Cell:
    """Time of a learning curve on etude."""
    import pegbox
    from _world import world_rows
    from pegbox.comparison import learning_curve

    made = world_rows("reviews", "hotels", 64 if quick else 256, seed=1)
    base = pegbox.load("etude")
    started = time.process_time()
    learning_curve(base, made.task, rows=made.rows, say=common.hush)
    return {"seconds": time.process_time() - started, "rows": len(made.rows)}


def told_curve(cell: common.Cell) -> str:
    """One sentence."""
    return (
        f"A learning curve of {cell['rows']} labels on etude, features included, takes "
        f"{common.seconds(cell['seconds'])} of one core (processor time)."
    )


def merging(quick: bool) -> common.Cell:
    """How far answers move when a LoRA adapter is merged, and what one that was on leaves in the base."""
    import torch

    import pegbox
    from _world import world_rows

    made, asked = (world_rows("reviews", "hotels", 64, seed=seed) for seed in (1, 2))
    few = pegbox.Training(max_steps=2 if quick else 20)
    base = pegbox.load("etude")
    tuned = pegbox.fit(base, made.task, "lora", rows=made.rows, training=few, say=common.hush)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        merged = pegbox.tuning.merge(tuned, Path(folder) / "merged", rows=asked.rows)
    board = pegbox.tuning.Switchboard(base, keep=False)
    board.add("one", tuned)
    with board.using("one"):
        pass
    board.off()
    left = max(
        float((value.double() - before[name].double()).abs().max())
        for name, value in base.model.state_dict().items()
        if torch.is_floating_point(value)
    )
    return {"merged": merged.max_change, "left": left}


def told_merging(cell: common.Cell) -> str:
    """Two sentences."""
    return (
        f"A LoRA adapter of etude merged in float32 changes the logits of 64 answers by at most "
        f"{cell['merged']:.0e}. `Switchboard(base, keep=False)` leaves a difference of at most "
        f"{cell['left']:.0e} in the base's weights once the adapter was on and off."
    )


def texts(quick: bool) -> common.Cell:
    """Slot errors of what people wrote for E2E, and the time at which an endless query is stopped."""
    from pegbox.evaluation import SqlTable, parse_record, score_texts

    found: dict[str, Any] = {}
    for split in ("test",) if quick else ("test", "valid"):
        lines = (common.DATA / "e2e_nlg" / f"{split}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        references = [row["references"] for row in rows]
        scores = score_texts(
            [own[0] for own in references],
            references,
            metrics=["slot_error_rate"],
            records=[parse_record(row["input"]) for row in rows],
        )
        numbers = {name: scores.metrics[name].value for name in ("slot_error_rate", "slots_judged")}
        found[split] = {**numbers, **scores.counts, "rows": len(rows)}
    table = SqlTable("data", ("n",), tuple((n,) for n in range(1000)))
    long = "SELECT COUNT(*) FROM data a, data b, data c WHERE a.n + b.n + c.n < 0"
    started = time.process_time()
    score_texts([long], [["SELECT n FROM data"]], metrics=["sql_execution"], tables=[table])
    return {"e2e": found, "sql": time.process_time() - started}


def told_texts(cell: common.Cell) -> str:
    """Two sentences."""
    told = "; ".join(
        f"{split}: {one['slot_error_rate']:.3f} of the {one['slots_judged']:.2f} of slots that are judged, "
        f"{one['slots_missing'] + one['slots_wrong']} slots in {one['rows']} records"
        for split, one in cell["e2e"].items()
    )
    return (
        f"Slot errors in what people wrote for E2E, first reference of each record: {told}. "
        f"A query that would not end is stopped after {common.seconds(cell['sql'])} (processor time)."
    )
