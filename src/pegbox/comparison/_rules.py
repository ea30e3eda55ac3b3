"""The rules by which a method is recommended: a table, read from the top."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from pegbox.comparison._pilot import Pilot
from pegbox.evaluation import SIGNIFICANT, Paired
from pegbox.methods import methods

FEW_ROWS = 100
MANY_ROWS = 250
ALMOST_PERFECT = 0.95


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    Args:
        task: Kind of the task.
        words: Whether the base can answer by label words.
        rows: Labelled rows.
        fits: Methods that can work on the base and stay within the budgets.
        heavy: Methods that could work but need more memory than is allowed.
        slow: Methods that could work but may take longer than is allowed.
        pilot: What was measured; ``None`` where nothing was.
        short_lora: Whether the short LoRA was asked for.
    """

    task: Literal["classify", "choose", "tag"]
    words: bool
    rows: int
    fits: Collection[str]
    heavy: Collection[str]
    slow: Collection[str]
    pilot: Pilot | None
    short_lora: bool = False

    @property
    def trainable(self) -> bool:
        """Whether any gradient method that tunes more than a head stays within the budgets."""
        rows = [kind.capability for name, kind in methods().items() if name in self.fits]
        return any(row.trains and not row.output_only for row in rows)

    @property
    def helped(self) -> bool:
        """Whether the closed form was shown to be better than what learns nothing."""
        return _better(self.pilot.gain if self.pilot else None)

    @property
    def tuned(self) -> bool:
        """Whether the short LoRA was shown to be better than the closed form."""
        return _better(self.pilot.tuned_gain if self.pilot else None)

    @property
    def almost_perfect(self) -> bool:
        """Whether the closed form leaves little to gain, at its interval's lower end."""
        closed = self.pilot.trial("closed-form") if self.pilot else None
        return closed is not None and closed.accuracy.low >= ALMOST_PERFECT

    @property
    def flat(self) -> bool:
        """Whether more labels would hardly help the closed form."""
        return bool(self.pilot and self.pilot.curve and self.pilot.curve.flat)


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Args:
        name: What it is called.
        holds: When it speaks.
        methods: What it recommends: the first of these that stays within the budgets.
        reason: Why, in plain words.
        source: Where that is known from.
        measured: Whether it rests on what was measured on the user's rows.
    """

    name: str
    holds: Callable[[Facts], bool]
    methods: tuple[str, ...]
    reason: str
    source: str
    measured: bool = False

    def chosen(self, facts: Facts) -> str | None:
        """The method that it recommends, if it speaks and one of them fits."""
        if not self.holds(facts):
            return None
        return next((name for name in self.methods if name in facts.fits), None)


RULES: tuple[Rule, ...] = (
    Rule(
        "entities",
        lambda facts: facts.task == "tag",
        ("lora", "bottleneck", "ia3", "qlora", "head", "full"),
        "entities are found by a head on every token; with LoRA, bottleneck adapters or IA3 below it more of "
        "them were found than by the head alone",
        "docs/every-method.md, wnut17_ner and sec_filings_ner",
    ),
    Rule(
        "options",
        lambda facts: facts.task == "choose",
        ("lora", "bottleneck", "ia3", "qlora", "few-shot", "zero-shot"),
        "every question has options of its own, so only a method that tunes inside the model learns from the "
        "labels",
        "docs/tasks.md",
    ),
    Rule(
        "measured better",
        lambda facts: facts.tuned,
        ("lora", "qlora", "bottleneck"),
        "even a short LoRA was better than the closed form on rows that neither had learnt from",
        "the pilot",
        measured=True,
    ),
    Rule(
        "tight budget",
        lambda facts: not facts.trainable,
        ("closed-form", "head", "few-shot", "zero-shot"),
        "nothing that trains inside the model stays within the budgets, and the closed form takes one pass "
        "over the rows",
        "the estimates",
    ),
    Rule(
        "nothing gained yet",
        lambda facts: facts.pilot is not None and not facts.helped and facts.rows < FEW_ROWS and facts.words,
        ("zero-shot", "few-shot", "closed-form"),
        f"with fewer than {FEW_ROWS} rows the closed form was not shown to be better than what learns "
        "nothing: label more before tuning",
        "the pilot",
        measured=True,
    ),
    Rule(
        "few rows",
        lambda facts: facts.rows < FEW_ROWS and (facts.helped or facts.pilot is None),
        ("closed-form", "head", "lora"),
        f"with fewer than {FEW_ROWS} rows the closed form holds none out to stop by, has little room to "
        "overfit and takes seconds; with 64 rows it was ahead of LoRA",
        "docs/results.md, sst2 on all-MiniLM-L6-v2: accuracy 0.695 against 0.642",
    ),
    Rule(
        "almost perfect",
        lambda facts: facts.almost_perfect,
        ("closed-form",),
        "the closed form is right on almost all rows that it had not learnt from, so that nothing costlier "
        "can gain much",
        "the pilot",
        measured=True,
    ),
    Rule(
        "flat curve",
        lambda facts: facts.flat,
        ("lora", "qlora", "bottleneck", "ia3"),
        "twice the labels would hardly help the closed form: what it can do on the frozen features is done, "
        "so tune inside the model",
        "the learning curve",
        measured=True,
    ),
    Rule(
        "little memory",
        lambda facts: "lora" in facts.heavy and facts.rows >= FEW_ROWS,
        ("qlora", "ia3", "soft-prompt", "closed-form"),
        "LoRA needs more memory than is allowed; a base with its linear layers in 4 bits, or a method that "
        "turns fewer numbers, needs less",
        "Dettmers et al. 2023, and the estimates",
    ),
    Rule(
        "many rows",
        lambda facts: facts.rows >= MANY_ROWS,
        ("lora", "bottleneck", "qlora", "ia3"),
        f"with {MANY_ROWS} rows and more there is enough to tune inside the model by, and memory for it; "
        "with 256 rows LoRA was ahead of the closed form",
        "docs/results.md, sst2 on all-MiniLM-L6-v2: accuracy 0.803 against 0.751",
    ),
    Rule(
        "closed form first",
        lambda _: True,
        ("closed-form", "lora", "qlora", "head", "few-shot", "zero-shot"),
        "between few and many rows the closed form is the cheapest that learns, and whether LoRA brings more "
        "must be measured",
        "docs/results.md, sst2",
    ),
)


def recommended(facts: Facts, rules: tuple[Rule, ...] = RULES) -> tuple[str, Rule] | None:
    """The method and the first rule that speaks for one which stays within the budgets; ``None`` for none."""
    for rule in rules:
        method = rule.chosen(facts)
        if method is not None:
            return method, rule
    return None


def rules_markdown() -> str:
    """The table as it stands in docs/advise.md."""
    lines = [
        "| rule | recommends the first that fits of | because | known from |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {rule.name} | {', '.join(rule.methods)} | {rule.reason} | {rule.source} |" for rule in RULES
    ]
    return "\n".join(lines)


def _better(found: Paired | None) -> bool:
    return found is not None and found.p < SIGNIFICANT and found.difference.value > 0
