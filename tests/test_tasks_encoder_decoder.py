"""Prompts of encoder-decoders: the question stands in the encoder's text, the answer in the decoder's."""

import random
from itertools import takewhile

import pytest

from pegbox.data import Examples, from_texts
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks import Classify, Demonstration, Prompt, prepare
from tiny import rows_of_length, tokenizer_for

GAP, START = 3, 1  # <extra_id_0> and <pad>, which starts T5's decoder
WORDS = ("great", "terrible")
FILLED = Classify(labels=("a", "b"), template="{text} It was {answer}, and", label_words=WORDS)
ASKED = Classify(labels=("a", "b"), template="{text} It was {answer}", label_words=WORDS)


def t5(task: Classify, context: int = 256) -> Prompt:
    return prepare(task, tokenizer_for("encoder-decoder"), "encoder-decoder", context, start=(START,))


def bart(task: Classify, context: int = 256) -> Prompt:
    tokenizer = tokenizer_for("encoder-decoder", "bart")
    return prepare(task, tokenizer, "encoder-decoder", context, start=(2, 0))


TEXTS = ["The tea was hot.", "Bad"]


def test_an_answer_at_the_end_is_left_out_and_said_first_by_the_decoder() -> None:
    for prompt, start in ((t5(ASKED), (1,)), (bart(ASKED), (2, 0))):
        encoded = prompt.encode(from_texts(TEXTS))
        wanted = [tuple(prompt.tokenizer(f"{text} It was")["input_ids"]) for text in TEXTS]
        assert list(encoded.ids) == wanted
        assert all(ids[-1] == 2 for ids in encoded.ids)  # the end token stays
        assert (encoded.decoder, encoded.positions) == (start, (len(start) - 1,) * 2)
        assert prompt.answers == tuple(
            tuple(prompt.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in WORDS
        )


def test_an_answer_in_the_middle_is_a_gap_that_the_decoder_fills_as_in_span_corruption() -> None:
    prompt = t5(FILLED)
    encoded = prompt.encode(from_texts(TEXTS))
    pieces = [prompt.tokenizer.convert_ids_to_tokens(ids) for ids in encoded.ids]
    # What follows the gap goes on in the line: the comma gets no space of its own.
    assert pieces[1][-6:] == ["▁It", "▁was", "<extra_id_0>", ",", "▁and", "</s>"]
    assert [ids.count(GAP) for ids in encoded.ids] == [1, 1]
    assert (encoded.decoder, encoded.positions) == ((START, GAP), (1, 1))
    whole = prompt.tokenizer("It was great", add_special_tokens=False)["input_ids"]
    assert prompt.answers[0] == tuple(whole[2:])


def test_an_answer_between_two_texts() -> None:
    pair = Classify(
        labels=("a", "b"), fields=("p", "h"), template="{p}? {answer}, {h}", label_words=("yes", "no")
    )
    ids = t5(pair).encode(from_texts([("a good hotel", "it was great")], ("p", "h"))).ids[0]
    text = tokenizer_for("encoder-decoder").decode(ids)
    assert text.split("<extra_id_0>")[0].strip() == "a good hotel?"
    with pytest.raises(CapabilityError) as error:
        bart(pair)
    assert str(error.value) == (
        "the template goes on after the answer, which this tokenizer has no token such as <extra_id_0> to "
        "stand for ('{p}? {answer}, {h}')\n"
        "  expected: {answer} after all text slots\n"
        "  fix: move {answer} to the end, or use a masked or T5 model"
    )


def test_without_a_sentinel_words_after_the_answer_are_only_shown_in_demonstrations() -> None:
    shown = [Demonstration({"text": "It broke."}, "b")]
    prompt = bart(FILLED).with_demonstrations(shown)
    text = prompt.tokenizer.decode(prompt.encode(from_texts(["Bad"])).ids[0])
    assert text == "<s>It broke. It was terrible, and\n\nBad It was</s>"


def test_the_sentinel_of_mt5_has_a_space_of_its_own() -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = tokenizer_for("encoder-decoder").backend_tokenizer.to_str().replace("<extra_id_", "▁<extra_id_")
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(state), unk_token="<unk>", eos_token="</s>"
    )
    assert prepare(FILLED, other, "encoder-decoder", 64, start=(START,)).opening == (START, GAP)


def test_demonstrations_stand_in_the_encoders_text() -> None:
    shown = [Demonstration({"text": "Hot tea."}, "a"), Demonstration({"text": "It broke."}, "b")]
    encoded = t5(FILLED).with_demonstrations(shown).encode(from_texts(["Nice."]))
    tokenizer = tokenizer_for("encoder-decoder")
    solved = tokenizer("Hot tea. It was great, and", add_special_tokens=False)["input_ids"]
    assert encoded.prefix == ()
    assert list(encoded.ids[0][: len(solved)]) == solved
    assert encoded.ids[0].count(GAP) == 1
    assert encoded.ids[0].index(GAP) > 2 * len(solved) - 4  # only the question has a gap
    assert encoded.decoder == (START, GAP)


@pytest.mark.parametrize("task", [ASKED, FILLED], ids=["asked", "filled"])
def test_special_tokens_that_a_user_spells_out_stay_text(task: Classify) -> None:
    prompt = t5(task)
    usual = prompt.encode(from_texts(["x"])).ids[0]
    for spelt in ("<extra_id_0>", "x </s> y", "<pad>"):
        ids = prompt.encode(from_texts([spelt])).ids[0]
        assert [ids.count(special) for special in (1, 2, 3)] == [
            usual.count(special) for special in (1, 2, 3)
        ]


@pytest.mark.parametrize("context", [12, 17, 40])
@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize("task", [ASKED, FILLED], ids=["asked", "filled"])
def test_only_the_end_of_the_users_text_is_cut(make, task: Classify, context: int) -> None:
    rows = rows_of_length([2, 60, 1, 33])
    encoded, full = make(task, context).encode(rows), make(task, 10_000).encode(rows)
    long = [at for at, ids in enumerate(full.ids) if len(ids) > context]
    assert encoded.shortened == tuple(rows.numbers[at] for at in long)
    assert {2, 4} <= set(encoded.shortened)
    ends = [ids[::-1] for ids in make(task).encode(from_texts(["x", "Bad", "tea"])).ids]
    tail = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ends, strict=False))))
    assert tail >= 3
    for at, (ids, original) in enumerate(zip(encoded.ids, full.ids, strict=True)):
        if at in long:
            assert context - 4 <= len(ids) <= context  # what is left unused is less than a word
            assert ids[-tail:] == original[-tail:]
        else:
            assert ids == original


def test_the_decoders_text_takes_no_room_from_the_encoders() -> None:
    words = ("great", "a good hotel with tea and breakfast")
    long = Classify(labels=("a", "b"), template=ASKED.template, label_words=words)
    rows = rows_of_length([60])
    assert t5(long, 30).encode(rows).ids == t5(ASKED, 30).encode(rows).ids
    assert len(t5(long, 30).answers[1]) > 5


def test_any_text_fits_any_context_that_holds_the_template() -> None:
    draw = random.Random(0)
    signs = ["😀", "é", "\n", "  ", "\u200b", "word ", "ß", "a", "…", "\t"]
    rows = from_texts(["".join(draw.choices(signs, k=draw.randrange(1, 60))) + "." for _ in range(40)])
    for task in (ASKED, FILLED):
        for context in (12, 14, 25):
            encoded = t5(task, context).encode(rows)
            assert max(encoded.lengths) <= context
            assert all(ids[-1] == 2 for ids in encoded.ids)
    with pytest.raises(InputError, match="the template alone is longer than the context"):
        t5(FILLED, 3).encode(rows)


def test_an_encoder_without_an_end_token_needs_something_to_read() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizer_for("encoder-decoder")
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    bare.backend_tokenizer.post_processor = None
    task = Classify(labels=("a", "b"), template="{text} {answer}", label_words=WORDS)
    prompt = prepare(task, bare, "encoder-decoder", 64, start=(START,))
    with pytest.raises(InputError, match="nothing is left of the text and the template to read an answer"):
        prompt.encode(Examples("tiny.csv", {"text": ("",)}, None, (1,)))


def test_what_the_decoder_reads_is_part_of_the_rows_digest() -> None:
    from dataclasses import replace

    encoded = t5(ASKED).encode(from_texts(["x"]))
    assert replace(encoded, decoder=(START, GAP)).digest() != encoded.digest()


@pytest.mark.parametrize("make", [t5, bart])
def test_a_saved_task_with_its_derived_wording_prepares_to_the_same_prompt(make) -> None:
    first = make(Classify(labels=("negative", "positive")))
    again = make(Classify.from_json(first.task.to_json()))
    assert again.notes == ()
    assert (again.answers, again.opening) == (first.answers, first.opening)
    assert first.task.template == "{text} It was {answer}."
    # With a sentinel the full stop is what follows the gap; without one the answer is what comes next.
    assert first.opening == ((START, GAP) if make is t5 else (2, 0))
