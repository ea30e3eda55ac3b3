"""Soft tokens in prompts: where they stand, what is left for the text, and who may mark them."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from pegbox.data import Examples, from_texts
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks import Classify, Demonstration, Kind, Prompt, Soft, Template, prepare
from test_tasks_wording import causal_bytes, masked_bytes, metaspace, wordpiece
from tiny import TEXT

TASK = Classify(labels=("a", "b"), template="{text} It was {answer}.", label_words=("great", "terrible"))
MARKED = replace(TASK, template="[P][P] Label [P] {text} [P] {answer}")
ALL = [("causal", causal_bytes), ("causal", metaspace), ("masked", masked_bytes), ("masked", wordpiece)]
FIRST = 1_000_000


def said(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def after(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text in the middle of a line."""
    return said(tokenizer, "x" + text)[len(said(tokenizer, "x")) :]


def marked(kind: Kind, tokenizer: PreTrainedTokenizerBase, task: Classify = MARKED, marks: int = 4) -> Prompt:
    return replace(prepare(task, tokenizer, kind, 256), soft=Soft(FIRST, marks=marks))


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_soft_tokens_at_the_front_follow_the_leading_special_tokens(kind: Kind, make: Any) -> None:
    plain = prepare(TASK, make(), kind, 256)
    rows = from_texts(["The tea was hot.", "Bad"])
    before, found = plain.encode(rows), replace(plain, soft=Soft(FIRST, front=3)).encode(rows)
    for old, new, place, moved in zip(before.ids, found.ids, before.positions, found.positions, strict=True):
        assert new == (old[0], FIRST, FIRST + 1, FIRST + 2, *old[1:])
        assert moved == place + 3
        assert new[moved] == old[place]


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_soft_tokens_before_the_answer(kind: Kind, make: Any) -> None:
    plain = prepare(TASK, make(), kind, 256)
    rows = from_texts(["The tea was hot."])
    before, found = plain.encode(rows), replace(plain, soft=Soft(FIRST, front=1, back=2)).encode(rows)
    at = before.positions[0] + (kind == "causal")  # where the answer, or its mask, stands
    expected = (before.ids[0][0], FIRST, *before.ids[0][1:at], FIRST + 1, FIRST + 2, *before.ids[0][at:])
    assert found.ids[0] == expected
    assert found.positions[0] == before.positions[0] + 3


@pytest.mark.parametrize("make", [causal_bytes, metaspace])
def test_anchors_between_marks_are_words_in_the_middle_of_a_line(make: Any) -> None:
    tokenizer = make()
    ids = marked("causal", tokenizer).encode(from_texts(["The tea was hot."])).ids[0]
    anchor, text = after(tokenizer, " Label"), after(tokenizer, " The tea was hot.")
    start = tokenizer("a")["input_ids"][:1]
    assert list(ids) == [*start, FIRST, FIRST + 1, *anchor, FIRST + 2, *text, FIRST + 3]


def test_marks_after_the_answer_of_a_masked_model_go_on_counting() -> None:
    tokenizer = wordpiece()
    task = replace(TASK, template="[P] {text} [P] was {answer} [P].")
    encoded = marked("masked", tokenizer, task, 3).encode(from_texts(["tea"]))
    ids = list(encoded.ids[0])
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert ids == [
        *(start, FIRST, *said(tokenizer, "tea"), FIRST + 1, *said(tokenizer, "was")),
        *(tokenizer.mask_token_id, FIRST + 2, *said(tokenizer, "."), end),
    ]
    assert ids[encoded.positions[0]] == tokenizer.mask_token_id


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_a_mark_in_a_row_is_plain_text(kind: Kind, make: Any) -> None:
    tokenizer = make()
    ids = marked(kind, tokenizer).encode(from_texts(["The [P] was [P]."])).ids[0]
    assert sum(token >= FIRST for token in ids) == 4
    text = ids[ids.index(FIRST + 2) + 1 : ids.index(FIRST + 3)]
    assert list(text) == after(tokenizer, " The [P] was [P].")


def test_each_demonstration_has_the_marks_anew() -> None:
    tokenizer = causal_bytes()
    task = replace(MARKED, demonstrations=(Demonstration({"text": "Good."}, "b"),))
    encoded = marked("causal", tokenizer, task).encode(from_texts(["Bad."]))
    soft = [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]
    assert [token for token in encoded.prefix if token >= FIRST] == soft
    assert [token for token in encoded.ids[0] if token >= FIRST] == soft
    at = encoded.prefix.index(FIRST + 3)
    assert list(encoded.prefix[at + 1 :]) == after(tokenizer, " terrible\n\n")


def test_those_at_the_front_stand_once_before_all_demonstrations() -> None:
    task = replace(TASK, demonstrations=(Demonstration({"text": "Good."}, "b"),))
    plain = prepare(task, causal_bytes(), "causal", 256)
    rows = from_texts(["Bad.", "Tea."])
    before, found = plain.encode(rows), replace(plain, soft=Soft(FIRST, front=2)).encode(rows)
    assert found.prefix == (before.prefix[0], FIRST, FIRST + 1, *before.prefix[1:])
    assert found.ids == before.ids
    assert found.positions == tuple(place + 2 for place in before.positions)


@pytest.mark.parametrize(("kind", "make"), ALL)
@pytest.mark.parametrize("soft", [Soft(FIRST, front=7), Soft(FIRST, front=3, back=4)])
def test_a_long_text_is_shortened_around_them(kind: Kind, make: Any, soft: Soft) -> None:
    plain = prepare(TASK, make(), kind, 48)
    prompt = replace(plain, soft=soft)
    rows = from_texts([" ".join(TEXT[:4]), "Tea."])
    encoded = prompt.encode(rows)
    assert encoded.shortened == (1,)
    assert encoded.lengths[0] <= 48
    # As the same text without soft tokens in a context that is shorter by their number.
    shorter = replace(plain, context=48 - soft.count).encode(rows)
    assert tuple(token for token in encoded.ids[0] if token < FIRST) == shorter.ids[0]
    assert sum(token >= FIRST for token in encoded.ids[0]) == soft.count
    with pytest.raises(InputError, match="1 texts are longer than the context"):
        prompt.encode(rows, too_long="error")


def test_an_encoder_reads_them_after_its_first_special_token() -> None:
    tokenizer = wordpiece()
    plain = prepare(TASK, tokenizer, "encoder", 24)
    prompt = replace(plain, soft=Soft(FIRST, front=2))
    rows = from_texts([("The tea was hot.", "It was."), (" ".join(TEXT[:3]), "no")], ("a", "b"))
    prompt, plain = (
        replace(p, task=replace(p.task, fields=("a", "b"), template=None)) for p in (prompt, plain)
    )
    encoded, before = prompt.encode(rows), replace(plain, context=22).encode(rows)
    assert encoded.types is not None
    assert before.types is not None
    for old, new, types, old_types in zip(before.ids, encoded.ids, encoded.types, before.types, strict=True):
        assert new == (old[0], FIRST, FIRST + 1, *old[1:])
        assert types == (0, 0, *old_types)
        assert len(new) <= 24
    assert encoded.shortened == (2,)


@pytest.mark.parametrize(
    ("text", "without", "before", "gap"),
    [
        ("[P][P] Label [P] {text} [P] {answer}", "Label {text} {answer}", "Label T", " "),
        ("{text} [P] [P]. It was {answer}", "{text} . It was {answer}", "T. It was", " "),
        ("{text}[P]{answer}", "{text}{answer}", "T", ""),
        ("{text} It was {answer}", "{text} It was {answer}", "T It was", " "),
    ],
)
def test_a_template_without_its_marks(text: str, without: str, before: str, gap: str) -> None:
    template = Template(text, ("text",))
    assert template.unmarked() == without
    assert (template.before({"text": "T"}), template.gap()) == (before, gap)
    assert "".join(template.pieces_before({"text": "T"})).strip() == before
    assert sum(template.marks) == text.count("[P]") == len(template.pieces_before({"text": "T"})) - 1


def test_without_soft_tokens_the_prompt_is_that_of_the_base() -> None:
    tokenizer = causal_bytes()
    rows = from_texts(["The tea was hot."])
    plain = prepare(TASK, tokenizer, "causal", 256)
    assert replace(plain, soft=Soft(FIRST, front=2, back=1)).without_soft() == plain
    unmarked = prepare(replace(TASK, template="Label {text} {answer}"), tokenizer, "causal", 256)
    assert marked("causal", tokenizer).without_soft().encode(rows) == unmarked.encode(rows)


def test_what_the_cache_calls_the_rows_tells_prompts_apart() -> None:
    plain = prepare(TASK, causal_bytes(), "causal", 256)
    rows = from_texts(["The tea was hot."])
    softs = [None, Soft(FIRST, front=2), Soft(FIRST, front=3), Soft(FIRST, front=1, back=1), Soft(9, front=2)]
    assert len({replace(plain, soft=soft).encode(rows).digest() for soft in softs}) == len(softs)


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_marks_that_nobody_learns_are_refused(kind: Kind, make: Any) -> None:
    prompt = prepare(MARKED, make(), kind, 256)
    for soft in (None, Soft(FIRST, front=4)):
        with pytest.raises(CapabilityError) as refused:
            replace(prompt, soft=soft).encode(Examples("rows", {"text": ("Tea",)}, None, (1,)))
        assert "the template marks 4 soft tokens with [P], which this method does not learn" in str(
            refused.value
        )
        assert "use p-tuning, or leave [P] out" in str(refused.value)


def test_a_task_keeps_its_template_as_it_was_written() -> None:
    assert Classify.from_json(MARKED.to_json()).template == MARKED.template
