"""Rows to token ids: special tokens, truncation, pairs, demonstrations."""

import random
import time
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from pegbox.data import Examples, from_texts
from pegbox.errors import InputError
from pegbox.tasks import Classify, Demonstration, Kind, Prompt, most_similar, prepare, random_per_class
from pegbox.tasks._tokens import shorten
from test_tasks_wording import causal_bytes, masked_bytes, metaspace, wordpiece
from tiny import TEXT, rows_of_length

TASK = Classify(labels=("a", "b"), template="{text} It was {answer}.", label_words=("great", "terrible"))
PAIR = Classify(
    labels=("a", "b"),
    fields=("p", "h"),
    template="{p} #### {h} So: {answer}",
    label_words=("yes", "no"),
)
ALL = [("causal", causal_bytes), ("causal", metaspace), ("masked", masked_bytes), ("masked", wordpiece)]


def said(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


@pytest.mark.parametrize("make", [causal_bytes, metaspace])
def test_a_causal_prompt_is_what_the_tokenizer_makes_of_the_text_with_one_start_token(make: Any) -> None:
    tokenizer = make()
    encoded = prepare(TASK, tokenizer, "causal", 256).encode(from_texts(["The tea was hot.", "Bad"]))
    assert encoded.ids == tuple(
        tuple(tokenizer(f"{text} It was")["input_ids"]) for text in ("The tea was hot.", "Bad")
    )
    assert encoded.positions == tuple(len(ids) - 1 for ids in encoded.ids)
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in encoded.ids)
    assert (encoded.prefix, encoded.shortened, encoded.notes()) == ((), (), [])


@pytest.mark.parametrize("make", [masked_bytes, wordpiece])
def test_a_masked_prompt_is_what_the_tokenizer_makes_of_the_text_with_its_mask(make: Any) -> None:
    tokenizer = make()
    encoded = prepare(TASK, tokenizer, "masked", 256).encode(from_texts(["The tea was hot.", "Bad"]))
    for text, ids, position in zip(("The tea was hot.", "Bad"), encoded.ids, encoded.positions, strict=True):
        assert list(ids) == tokenizer(f"{text} It was{tokenizer.mask_token}.")["input_ids"]
        assert ids[position] == tokenizer.mask_token_id


@pytest.mark.parametrize(("kind", "make"), ALL)
@pytest.mark.parametrize("wrap", ["{}", "x {} y", "{}{}"])
def test_special_tokens_that_a_user_spells_out_stay_text(kind: Kind, make: Any, wrap: str) -> None:
    tokenizer = make()
    spelt = [wrap.replace("{}", token) for token in tokenizer.all_special_tokens]
    for prompt in (prepare(TASK, tokenizer, kind, 256), prepare(TASK, tokenizer, "encoder", 256)):
        usual = prompt.encode(from_texts(["x"])).ids[0]
        for ids in prompt.encode(from_texts(spelt)).ids:
            for special in tokenizer.all_special_ids:
                assert ids.count(special) == usual.count(special)


@pytest.mark.parametrize(("kind", "make"), ALL)
@pytest.mark.parametrize("context", [12, 17, 40])
def test_only_the_end_of_the_users_text_is_cut(kind: Kind, make: Any, context: int) -> None:
    tokenizer, rows = make(), rows_of_length([2, 60, 1, 33])
    prompt, whole = prepare(TASK, tokenizer, kind, context), prepare(TASK, tokenizer, kind, 10_000)
    encoded, full = prompt.encode(rows), whole.encode(rows)
    long = [at for at, ids in enumerate(full.ids) if len(ids) > context]
    assert encoded.shortened == tuple(rows.numbers[at] for at in long)
    assert {2, 4} <= set(encoded.shortened)
    tail = (
        len(said(tokenizer, "x It was"))
        - len(said(tokenizer, "x"))
        + (2 + (kind == "masked")) * (kind == "masked")
    )
    for at, (ids, original) in enumerate(zip(encoded.ids, full.ids, strict=True)):
        if at not in long:
            assert ids == original
            continue
        assert context - 3 <= len(ids) <= context  # what is left unused is less than a word
        assert ids[-tail:] == original[-tail:]
        kept = len(ids) - tail - 1
        assert ids[:kept] == original[:kept]
        assert encoded.positions[at] == full.positions[at] - (len(original) - len(ids))


def test_the_count_and_the_row_numbers_are_told() -> None:
    rows = rows_of_length([50] * 9 + [1])
    encoded = prepare(TASK, causal_bytes(), "causal", 20).encode(rows)
    assert encoded.notes() == [
        "tiny.csv: 9 of 10 texts shortened to fit the context (rows 1, 2, 3, 4, 5, 6, 7, 8, 9)"
    ]
    with pytest.raises(InputError) as error:
        prepare(TASK, causal_bytes(), "causal", 20).encode(rows, too_long="error")
    assert str(error.value) == (
        "9 texts are longer than the context (tiny.csv, rows 1, 2, 3, 4, 5, 6, 7, 8, 9)\n"
        "  expected: at most 20 tokens with the template\n"
        "  fix: shorten them, or let them be cut with --too-long shorten"
    )
    assert not prepare(TASK, causal_bytes(), "causal", 500).encode(rows, too_long="error").shortened


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_any_text_fits_any_context_that_holds_the_template(kind: Kind, make: Any) -> None:
    """Characters of several tokens, joined signs, spaces, and what a tokenizer leaves out."""
    draw = random.Random(0)
    signs = ["😀", "👩‍👩‍👧", "é", "\n", "  ", "\u200b", "好", "word ", "ß", "\x07", "a", "…", "\t"]
    texts = ["".join(draw.choices(signs, k=draw.randrange(1, 60))) + "." for _ in range(60)]
    rows = from_texts(texts)
    for context in (12, 13, 14, 15, 16, 25):
        encoded = prepare(TASK, make(), kind, context).encode(rows)
        assert max(encoded.lengths) <= context
        for ids, position in zip(encoded.ids, encoded.positions, strict=True):
            assert 0 <= position < len(ids)


@pytest.mark.parametrize("make", [causal_bytes, metaspace, wordpiece])
@pytest.mark.parametrize("fast", [True, False])
def test_shortening_drops_what_it_must_and_little_more(make: Any, fast: bool) -> None:
    tokenizer = make()

    class Chosen:
        is_fast = fast

        def __call__(self, *args: Any, **options: Any) -> Any:
            return tokenizer(*args, **options)

    for text in (TEXT[1], "good hotel " * 9, "😀" * 12):
        length = len(said(tokenizer, text))
        for drop in range(1, length + 3):
            cut = shorten(Chosen(), text, drop)  # type: ignore[arg-type]
            assert text.startswith(cut)
            assert len(cut) < len(text)
            assert len(said(tokenizer, cut)) <= max(0, length - drop)
            assert len(said(tokenizer, cut)) >= length - drop - 6  # a sign of several tokens, and its space
        assert shorten(Chosen(), text, 0) == text  # type: ignore[arg-type]


def test_of_a_pair_the_longer_text_is_cut_first_and_both_when_both_are_long() -> None:
    tokenizer = causal_bytes()
    words = rows_of_length([80, 80, 4]).fields["text"]
    pairs = {"p": (words[0], words[2], words[0]), "h": (words[2], words[1], words[1])}
    rows = Examples("pairs.csv", pairs, None, (1, 2, 3))
    encoded = prepare(PAIR, tokenizer, "causal", 60).encode(rows)
    texts = [tokenizer.decode(ids[1:]) for ids in encoded.ids]
    assert encoded.shortened == (1, 2, 3)
    assert all(text.endswith(" So:") for text in texts)
    assert f" #### {words[2]} So:" in texts[0]  # the short one is whole on either side
    assert texts[1].startswith(f"{words[2]} #### ")
    first, second = texts[2].removesuffix(" So:").split(" #### ")
    assert abs(len(said(tokenizer, first)) - len(said(tokenizer, second))) <= 3
    assert words[0].startswith(first)
    assert words[1].startswith(second)


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_a_context_that_does_not_hold_the_template_is_told(kind: Kind, make: Any) -> None:
    with pytest.raises(InputError) as error:
        prepare(TASK, make(), kind, 3).encode(rows_of_length([2, 60]))
    assert str(error.value) == (
        "the template alone is longer than the context (tiny.csv, row 1)\n"
        "  expected: at most 3 tokens for demonstrations, template and answer\n"
        "  fix: shorten the template, show fewer demonstrations, or raise --max-length"
    )


def test_a_causal_prompt_is_never_empty() -> None:
    bare = Classify(labels=("a", "b"), template="{text} {answer}", label_words=("great", "bad"))
    with pytest.raises(
        InputError, match=r"nothing is left of the text and the template .*\(tiny.csv, row 1\)"
    ):
        prepare(bare, causal_bytes(), "causal", 1).encode(rows_of_length([3]))


def test_room_is_kept_for_answers_of_several_tokens() -> None:
    long = Classify(labels=("a", "b"), template=TASK.template, label_words=("great", "a good hotel with tea"))
    prompt = prepare(long, causal_bytes(), "causal", 30)
    extra = max(map(len, prompt.answers)) - 1
    assert extra >= 4
    assert max(prompt.encode(rows_of_length([60])).lengths) <= 30 - extra


def test_other_columns_than_the_tasks_are_told() -> None:
    for kind in ("causal", "encoder"):
        with pytest.raises(InputError, match=r"(?s)the rows have the text columns p, h .*expected: text"):
            prepare(TASK, causal_bytes(), kind, 64).encode(from_texts([("x", "y")], ("p", "h")))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["causal", "masked", "encoder"])
def test_no_rows_are_no_error(kind: Kind) -> None:
    tokenizer = causal_bytes() if kind == "causal" else wordpiece()
    encoded = prepare(TASK, tokenizer, kind, 64).encode(rows_of_length([]))
    assert (len(encoded), encoded.lengths, encoded.notes()) == (0, [], [])


def test_encoders_read_plain_texts_and_pairs_cut_longest_first() -> None:
    tokenizer = wordpiece()
    rows = rows_of_length([3, 60])
    encoded = prepare(Classify(labels=("a", "b")), tokenizer, "encoder", 16).encode(rows)
    assert encoded.shortened == (2,)
    assert list(encoded.ids[0]) == tokenizer(rows.fields["text"][0])["input_ids"]
    assert len(encoded.ids[1]) == 16
    pair = Classify(labels=("a", "b"), fields=("p", "h"))
    texts = rows_of_length([4, 60]).fields["text"]
    two = prepare(pair, tokenizer, "encoder", 32).encode(from_texts([texts], ("p", "h")))
    assert two.types is not None
    assert len(two.ids[0]) == len(two.types[0]) == 32
    first = said(tokenizer, texts[0])
    assert two.ids[0][1 : 1 + len(first)] == first
    with pytest.raises(InputError, match=r"1 texts are longer than the context \(tiny.csv, row 2\)"):
        prepare(Classify(labels=("a", "b")), tokenizer, "encoder", 16).encode(rows, too_long="error")


ROWS = Examples(
    "d.csv", {"text": tuple(f"text {i}" for i in range(12))}, ("a", "b", "c") * 4, tuple(range(1, 13))
)


def test_random_demonstrations_are_seeded_and_as_many_of_each_label() -> None:
    first, again, other = (random_per_class(ROWS, "abc", 2, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(shown.label for shown in first) == ["a", "a", "b", "b", "c", "c"]
    assert len({shown.fields["text"] for shown in first}) == 6
    label = dict(zip(ROWS.fields["text"], ROWS.labels or (), strict=True))
    assert all(label[shown.fields["text"]] == shown.label for shown in first)
    assert len(random_per_class(ROWS, "abc", 99, seed=0)) == 12  # no more than there are
    with pytest.raises(InputError, match=r"(?s)no row shows the label 'd' \(d.csv\).*add rows of that label"):
        random_per_class(ROWS, "abcd", 2, seed=0)


def test_most_similar_by_hand() -> None:
    import numpy as np

    rows = Examples("d.csv", {"text": ("p", "q", "P ", "r")}, ("a", "a", "a", "b"), (1, 2, 3, 4))
    features = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.1], [0.0, 0.0]])
    queries = np.array([[5.0, 0.0]])
    shown = most_similar(rows, features, queries, "ab", 2)[0]
    # cosines with (5, 0): 1, 0.6, 0.995 and 0 for the row of zeros; the nearest last
    assert [item.fields["text"] for item in shown] == ["r", "P ", "p"]
    own = most_similar(rows, features, queries, "ab", 2, same=[0])[0]
    assert [item.fields["text"] for item in own] == ["r", "q"]  # 'P ' is 'p' but for case and spacing


def test_demonstrations_carry_their_answers_and_come_before_every_row() -> None:
    tokenizer = causal_bytes()
    shown = [Demonstration({"text": "Hot tea."}, "a"), Demonstration({"text": "It broke."}, "b")]
    prompt = prepare(TASK, tokenizer, "causal", 256).with_demonstrations(shown)
    encoded = prompt.encode(from_texts(["Nice.", "Bad {answer} day"]))
    assert tokenizer.decode(encoded.prefix) == ("<s>Hot tea. It was great.\n\nIt broke. It was terrible.\n\n")
    assert [tokenizer.decode(ids) for ids in encoded.ids] == ["Nice. It was", "Bad {answer} day It was"]
    assert encoded.positions == tuple(len(encoded.prefix) + len(ids) - 1 for ids in encoded.ids)
    masked = prepare(TASK, masked_bytes(), "masked", 256).with_demonstrations(shown)
    whole = masked.encode(from_texts(["Nice."]))
    assert masked.tokenizer.decode(whole.ids[0]) == (
        "<s>Hot tea. It was great.\n\nIt broke. It was terrible.\n\nNice. It was<mask>.</s>"
    )
    assert whole.ids[0][whole.positions[0]] == masked.tokenizer.mask_token_id


def test_texts_give_way_to_demonstrations_and_a_full_context_is_told() -> None:
    shown = [Demonstration({"text": "Hot tea and a good hotel."}, "a")] * 3
    prompt = prepare(TASK, causal_bytes(), "causal", 90).with_demonstrations(shown)
    encoded = prompt.encode(rows_of_length([200]))
    assert encoded.shortened == (1,)
    assert len(encoded.prefix) + len(encoded.ids[0]) <= 90
    with pytest.raises(InputError, match="the template alone is longer than the context"):
        prepare(TASK, causal_bytes(), "causal", 30).with_demonstrations(shown).encode(rows_of_length([5]))


def test_a_saved_task_with_its_derived_wording_prepares_to_the_same_prompt() -> None:
    task = Classify(
        labels=("negative", "positive"), demonstrations=(Demonstration({"text": "x"}, "negative"),)
    )
    first = prepare(task, causal_bytes(), "causal", 64)
    again = prepare(Classify.from_json(first.task.to_json()), causal_bytes(), "causal", 64)
    assert again.notes == ()
    assert (again.task, again.answers) == (first.task, first.answers)
    assert again.encode(rows_of_length([4])) == first.encode(rows_of_length([4]))


def long_and_short(count: int) -> Examples:
    texts = rows_of_length([5, 40, 90]).fields["text"]
    rows = tuple(f"{number} {texts[number % 3]}" for number in range(count))
    return Examples("many.csv", {"text": rows}, None, tuple(range(count)))


def test_ten_thousand_rows_are_encoded_in_seconds() -> None:
    prompt = prepare(TASK, wordpiece(), "masked", 512)
    started = time.perf_counter()
    encoded = prompt.encode(long_and_short(10_000))
    # 3 s alone on one core, two of them in the tokenizer; five times that for a busy one.
    assert time.perf_counter() - started < 15
    assert len(encoded) == 10_000


def test_rows_that_fit_are_tokenised_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from pegbox.tasks import _soft

    sizes: list[int] = []
    plain = _soft.plain_ids
    monkeypatch.setattr(
        _soft, "plain_ids", lambda tok, texts: (sizes.append(len(texts)), plain(tok, texts))[1]
    )
    Prompt.encode(prepare(TASK, causal_bytes(), "causal", 512), long_and_short(300))
    assert sizes == [0, 300]  # no demonstrations, all rows
