"""advise: the rules, the pilot, and that nothing is recommended that does not fit."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pegbox
from estimate_toy import MEASURED
from pegbox.comparison import Advice, Costs, Offer, Pilot, Trial, advise
from pegbox.comparison import _estimate as estimates
from pegbox.comparison._rules import FEW_ROWS, MANY_ROWS, RULES, Facts, recommended, rules_markdown
from pegbox.comparison._said import doubts, reasons
from pegbox.data import Questions, Sentences
from pegbox.errors import InputError, UsageError
from pegbox.evaluation import Estimate, Paired
from pegbox.methods import methods
from tiny import tiny_base
from tuning_toy import LABELS, hush, rows_of, task_of

ALL = tuple(methods())
HEAVY = {"lora", "full"}
BETTER = Paired("accuracy", 0.9, 0.8, Estimate(0.1, 0.05, 0.15), 0.01, "McNemar", 200)
ALIKE = Paired("accuracy", 0.82, 0.8, Estimate(0.02, -0.05, 0.09), 0.6, "McNemar", 200)
WORSE = Paired("accuracy", 0.7, 0.8, Estimate(-0.1, -0.15, -0.05), 0.01, "McNemar", 200)


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates.Calibration, "measured", lambda *_, **__: MEASURED)


def trial(name: str, value: float, half: float = 0.02) -> Trial:
    return Trial(
        name, Estimate(value, value - half, value + half), Estimate(0.5, 0.4, 0.6), 200, "5 folds", 0.1
    )


def pilot(gain: Paired | None = BETTER, tuned: Paired | None = None, closed: float = 0.85) -> Pilot:
    trials = trial("majority", 0.5), trial("zero-shot", 0.7), trial("closed-form", closed)
    return Pilot(trials, gain, tuned, None, (), 1.0)


def facts(**options: Any) -> Facts:
    known: dict[str, Any] = {"task": "classify", "words": True, "rows": 150, "fits": ALL}
    known |= {"heavy": (), "slow": (), "pilot": pilot()}
    return Facts(**{**known, **options})


def chosen(**options: Any) -> tuple[str, str]:
    found = recommended(facts(**options))
    assert found is not None
    return found[0], found[1].name


# The rules


@pytest.mark.parametrize(
    ("options", "method", "rule"),
    [
        ({}, "closed-form", "closed form first"),
        ({"rows": 50}, "closed-form", "few rows"),
        ({"rows": 50, "pilot": None}, "closed-form", "few rows"),
        ({"rows": 50, "pilot": pilot(ALIKE)}, "zero-shot", "nothing gained yet"),
        ({"rows": 50, "pilot": pilot(WORSE)}, "zero-shot", "nothing gained yet"),
        ({"rows": 50, "pilot": pilot(ALIKE), "words": False}, "closed-form", "closed form first"),
        ({"rows": 500}, "lora", "many rows"),
        ({"rows": 500, "pilot": None}, "lora", "many rows"),
        ({"rows": 500, "pilot": pilot(closed=0.98)}, "closed-form", "almost perfect"),
        ({"pilot": pilot(tuned=BETTER)}, "lora", "measured better"),
        ({"pilot": pilot(tuned=WORSE)}, "closed-form", "closed form first"),
        (
            {"rows": 500, "fits": set(ALL) - {"lora", "full"}, "heavy": {"lora", "full"}},
            "qlora",
            "little memory",
        ),
        ({"rows": 500, "fits": {"closed-form", "head", "zero-shot"}}, "closed-form", "tight budget"),
        ({"rows": 500, "fits": {"zero-shot"}}, "zero-shot", "tight budget"),
        ({"task": "tag"}, "lora", "entities"),
        ({"task": "tag", "fits": {"head"}}, "head", "entities"),
        ({"task": "choose"}, "lora", "options"),
        ({"task": "choose", "fits": {"zero-shot", "few-shot"}}, "few-shot", "options"),
    ],
)
def test_each_rule_speaks_where_it_should(options: dict[str, Any], method: str, rule: str) -> None:
    assert chosen(**options) == (method, rule)


def test_nothing_is_recommended_that_does_not_fit() -> None:
    pilots = [None, pilot(), pilot(ALIKE), pilot(tuned=BETTER), pilot(closed=0.99)]
    kinds, sizes = ("classify", "choose", "tag"), (FEW_ROWS - 1, FEW_ROWS, MANY_ROWS)
    subsets = [(), *itertools.combinations(ALL, 1), *itertools.combinations(ALL, 2), ALL[:6], ALL]
    for fits, found, task, rows in itertools.product(subsets, pilots, kinds, sizes):
        heavy = tuple(name for name in ALL if name not in fits)
        answer = recommended(facts(task=task, rows=rows, fits=fits, heavy=heavy, pilot=found))
        if answer is not None:
            assert answer[0] in fits
        elif task == "classify":
            # Something that fits may still be no method to begin with; the common ones always speak.
            assert not {"closed-form", "lora", "zero-shot", "head", "few-shot", "qlora"} & set(fits)


def test_every_rule_names_known_methods_its_reason_and_its_source() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule.methods) <= set(ALL)
        assert rule.reason
        assert rule.source
        assert rule.name in rules_markdown()


def test_the_page_holds_the_table_of_the_rules() -> None:
    page = Path(__file__).parent.parent / "docs" / "advise.md"
    assert rules_markdown() in page.read_text("utf-8")


# What is said


def test_what_was_measured_is_said_and_what_was_not_is_doubted() -> None:
    rule = recommended(facts(rows=500))
    assert rule is not None
    said = reasons(facts(rows=500), rule[1], ())
    assert said[0].startswith("with 250 rows and more")
    assert "zero-shot 0.700 (difference +0.100 [+0.050, +0.150], p = 0.010)" in said[1]
    unsure = doubts(facts(rows=500), rule[1], None, None, None)
    assert "the rule was not measured on these rows" in unsure[0]
    sure = recommended(facts(pilot=pilot(tuned=BETTER)))
    assert sure is not None
    assert not doubts(facts(pilot=pilot(tuned=BETTER)), sure[1], None, None, None)


def test_a_rule_s_second_method_is_not_praised_for_the_first_s_reason() -> None:
    known = facts(fits=("ia3", "lora"), rows=150)
    rule = recommended(known)
    assert rule is not None
    assert rule[0] == "lora"
    offers = [Offer(Costs(name, {}, True, seconds=1.0, memory=1)) for name in ("lora", "ia3")]
    (said, *_) = reasons(known, rule[1], offers)
    assert said.startswith(
        "its rule names closed-form (not among the methods asked for) before it, and lora is the next that "
    )
    assert "the rule's reason: between few and many rows" in said
    heavy = [Offer.within(Costs("closed-form", {}, True, seconds=1.0, memory=100), 10, None), *offers]
    assert "closed-form (more memory than is allowed)" in reasons(known, rule[1], heavy)[0]


def test_a_short_lora_is_proposed_only_where_it_could_be_tried() -> None:
    for known, proposed in (
        (facts(), True),
        (facts(short_lora=True), False),
        (facts(pilot=None), False),
        (facts(fits=("closed-form",)), False),
    ):
        found = " ".join(doubts(known, RULES[-1], None, None, None))
        assert ("--short-lora" in found) == proposed
        assert "pegbox compare measures it" in found


def test_chance_and_wide_intervals_are_doubted() -> None:
    wide = Pilot((trial("closed-form", 0.7, half=0.12),), ALIKE, ALIKE, None, (), 1.0)
    found = " ".join(doubts(facts(pilot=wide), RULES[-1], None, None, None))
    assert "200 rows tell the pilot's accuracies to about ± 12 points only" in found
    assert "the closed form cannot be told from what learns nothing" in found
    assert "the short LoRA was not shown to be better" in found


def test_a_budget_that_is_just_met_is_doubted() -> None:
    costs = Costs("lora", {}, True, seconds=700.0, memory=900)
    found = doubts(facts(), RULES[-1], costs, 1000, 1200.0)
    assert any("it may need more than is allowed" in line for line in found)
    assert any("it may take longer than is allowed" in line for line in found)
    easy = doubts(facts(), RULES[-1], costs, 2000, 1500.0)
    assert not any("than is allowed" in line for line in easy)


@pytest.mark.parametrize(
    ("costs", "by", "reason"),
    [
        (Costs("x", {}, False, "it cannot"), "", "it cannot"),
        (
            Costs("x", {}, True, seconds=1.0, memory=2**31),
            "memory",
            "needs about 2 GiB, and 512 MiB are allowed",
        ),
        (
            Costs("x", {}, True, seconds=90.0, memory=1),
            "time",
            "may take up to 1 min 30 s, and 1 min 00 s are",
        ),
        (Costs("x", {}, True, seconds=1.0, memory=1), "", ""),
    ],
)
def test_why_a_method_is_left_out(costs: Costs, by: str, reason: str) -> None:
    offer = Offer.within(costs, 2**29, 60.0)
    assert offer.by == by
    assert offer.left_out.startswith(reason)
    assert bool(offer.left_out) == bool(reason)


def test_little_memory_is_told_in_its_own_unit() -> None:
    offer = Offer.within(Costs("x", {}, True, memory=2**26), 2000, None)
    assert offer.left_out == "needs about 64 MiB, and 1.95 KiB are allowed"


# From rows to advice


def advised(rows: int = 60, **options: Any) -> Advice:
    return advise(tiny_base("llama"), task_of(), rows=rows_of(rows), **{"say": hush, **options})


def test_advice_on_rows_tells_costs_pilot_and_reasons() -> None:
    found = advised()
    assert {offer.costs.method for offer in found.offers} == set(ALL)
    assert found.method in ALL
    assert found.pilot is not None
    assert [one.name for one in found.pilot.trials] == ["majority", "zero-shot", "closed-form"]
    assert all(one.rows == 60 for one in found.pilot.trials)
    # Texts tell the label in nine of ten rows, which no majority knows.
    assert found.pilot.gain is not None
    assert found.pilot.gain.rows == 60
    assert found.pilot.curve is not None
    assert any("twice the labels" in line for line in found.reasons)
    assert found.lines()[0] == f"begin with {found.method}: {found.reasons[0]}"
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["format"] == "pegbox.advice/1"
    assert content["pilot"]["curve"]["format"] == "pegbox.learning-curve/1"
    assert content["offers"][0]["costs"]["method"]


def test_the_pilot_answers_rows_that_it_did_not_learn_from() -> None:
    # Labels are drawn at random: whatever fits its own rows would be far above chance on them.
    labels = [label for label in LABELS[:2] for _ in range(60)]
    random.Random(0).shuffle(labels)
    rows = replace(rows_of(120), labels=tuple(labels))
    found = advise(tiny_base("llama"), task_of(), rows=rows, methods=["closed-form"], say=hush)
    assert found.pilot is not None
    closed = found.pilot.trial("closed-form")
    assert closed is not None
    assert closed.accuracy.low < 0.5 < closed.accuracy.high


def test_the_same_seed_gives_the_same_pilot() -> None:
    one, two = (advised(methods=["closed-form"]).pilot for _ in range(2))
    assert one is not None
    assert two is not None
    assert [(t.accuracy, t.nll) for t in one.trials] == [(t.accuracy, t.nll) for t in two.trials]


def test_budgets_leave_out_and_are_kept() -> None:
    free = advised(pilot=False)
    needs = {offer.costs.method: offer.costs.memory or 0 for offer in free.offers if not offer.left_out}
    limit = sorted(needs.values())[len(needs) // 2]
    found = advised(memory=limit, pilot=False)
    for offer in found.offers:
        fits = needs.get(offer.costs.method, limit + 1) <= limit
        assert (offer.left_out == "") == fits
    assert found.method is not None
    assert needs[found.method] <= limit


def test_where_nothing_fits_it_says_what_would_be_needed() -> None:
    found = advised(memory=1, pilot=False)
    assert found.method is None
    assert found.rule == "nothing fits"
    assert found.lines()[0].startswith("no method fits: no method stays within the budgets: the least memory")


def test_a_short_lora_is_tried_on_request() -> None:
    found = advised(short_lora=True, methods=["lora", "closed-form"], training=pegbox.Training(batch_size=8))
    assert found.pilot is not None
    assert found.pilot.trials[-1].name == "lora, 64 steps at the most"
    assert found.pilot.tuned_gain is not None
    assert found.pilot.tuned_gain.rows == found.pilot.trials[-1].rows == 12


def test_an_encoder_is_asked_without_words() -> None:
    base = tiny_base("bert", "encoder")
    found = advise(base, pegbox.Classify(labels=LABELS[:2]), rows=rows_of(60), say=hush)
    assert found.pilot is not None
    assert [one.name for one in found.pilot.trials] == ["majority", "closed-form"]
    left = {offer.costs.method: offer.left_out for offer in found.offers}
    assert "zero-shot cannot work on an encoder" in left["zero-shot"]
    assert found.method not in ("zero-shot", "few-shot")


def test_label_words_that_share_a_token_leave_the_pilot_out() -> None:
    task = task_of(label_words=("great tea", "great hotel"))
    found = advise(tiny_base("llama"), task, rows=rows_of(40), say=hush)
    assert found.pilot is None
    assert any(
        "nothing was measured: two label words begin with the same token" in line for line in found.doubts
    )


def test_tagging_is_advised_without_a_pilot() -> None:
    words, tags = (("Ann", "met", "Bob", "."),) * 40, (("B-PER", "O", "B-PER", "O"),) * 40
    rows = Sentences("s", words, tags, tuple(range(1, 41)))
    task = pegbox.Tag(types=("PER",))
    found = advise(tiny_base("bert", "masked"), task, rows=rows, say=hush)
    assert (found.method, found.rule, found.pilot) == ("lora", "entities", None)
    left = {offer.costs.method: offer.left_out for offer in found.offers}
    assert "entities are found by a head" in left["closed-form"] or "tunes no head" in left["closed-form"]
    assert any("the pilot is that of classification" in line for line in found.doubts)


def test_choosing_is_advised_without_a_pilot() -> None:
    options = (("red tea", "hot kettle", "bad hotel"),) * 40
    rows = Questions("q", {"question": ("What was great?",) * 40}, options, (0, 1) * 20, tuple(range(1, 41)))
    found = advise(tiny_base("llama"), pegbox.Choose(), rows=rows, say=hush)
    assert (found.method, found.rule, found.pilot) == ("lora", "options", None)
    left = {offer.costs.method: offer.left_out for offer in found.offers}
    assert "every question has options of its own" in left["closed-form"]


def test_rows_and_methods_are_checked() -> None:
    with pytest.raises(InputError, match="there are no rows to advise on"):
        advise(tiny_base("llama"), task_of(), say=hush)
    with pytest.raises(UsageError, match="there is no method 'lorra'"):
        advised(methods=["lorra"])
    with pytest.raises(UsageError, match="majority is a baseline"):
        advised(methods=["lora", "majority"])
    with pytest.raises(UsageError, match="no method to choose from"):
        advised(methods=[])
    with pytest.raises(UsageError, match="the short LoRA is a part of the pilot"):
        advised(short_lora=True, pilot=False)
    with pytest.raises(InputError, match="label"):
        advise(tiny_base("llama"), task_of(), rows=rows_of(40, labels=3), say=hush)
