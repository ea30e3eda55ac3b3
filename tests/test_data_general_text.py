"""General text: how files become documents, and which of them are drawn."""

import gzip
import lzma
from pathlib import Path

import pytest

from pegbox.data import read_general_text
from pegbox.data._general_text import LONGEST
from pegbox.errors import InputError, UsageError

TEXT = "The first paragraph\ngoes on here.\n\n \nThe second has naïve 🫖 words.\n\n\nThe third."
PARTS = ("The first paragraph\ngoes on here.", "The second has naïve 🫖 words.", "The third.")


def test_a_text_file_is_divided_at_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text(TEXT, "utf-8")
    found = read_general_text(file)
    assert found.documents == PARTS
    assert found.bytes == sum(len(part.encode()) for part in PARTS)
    assert found.notes == (f"{file}: 3 documents of general text, {found.bytes} bytes",)


def test_without_blank_lines_at_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("one line\r\nanother\r\n", "utf-8", newline="")
    assert read_general_text(file).documents == ("one line", "another")


@pytest.mark.parametrize("how", ["gz", "xz"])
def test_a_line_that_ends_documents_wins_and_files_may_be_compressed(tmp_path: Path, how: str) -> None:
    file = tmp_path / f"general.txt.{how}"
    compress = {"gz": gzip.compress, "xz": lzma.compress}[how]
    file.write_bytes(compress(b"a\n\nb\n<|endoftext|>\nc\n<|endoftext|>\n"))
    assert read_general_text(file).documents == ("a\n\nb", "c")


def test_a_folder_gives_each_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second\n\nstill second", "utf-8")
    (tmp_path / "a.txt").write_text("first", "utf-8")
    (tmp_path / "deep" / "c.txt").write_text("third", "utf-8")
    (tmp_path / "readme.md").write_text("no text of ours", "utf-8")
    assert read_general_text(tmp_path).documents == ("first", "second\n\nstill second", "third")


def test_tables_give_their_text_column(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,story\none,uno\ntwo,due\n,\n", "utf-8")
    assert read_general_text(file).documents == ("one", "two")
    assert read_general_text(file, column="story").documents == ("uno", "due")
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"body": "a longer text here"}\n{"body": "and another one here"}\n', "utf-8")
    found = read_general_text(lines)
    assert found.documents == ("a longer text here", "and another one here")
    assert any("body" in note for note in found.notes)


def test_long_documents_are_cut_at_spaces_and_lose_none_of_their_words(tmp_path: Path) -> None:
    words = [f"word{at}" for at in range(2000)]
    file = tmp_path / "book.txt"
    file.write_text(" ".join(words), "utf-8")
    found = read_general_text(file)
    assert len(found) > 1
    assert max(map(len, found.documents)) <= LONGEST
    assert " ".join(found.documents).split() == words
    file.write_text("x" * (2 * LONGEST + 1), "utf-8")
    assert [len(text) for text in read_general_text(file).documents] == [LONGEST, LONGEST, 1]


def test_a_draw_is_seeded_keeps_the_order_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("\n\n".join(f"document number {at:04}" for at in range(500)), "utf-8")
    first, same, other = (read_general_text(file, size=2100, seed=seed) for seed in (0, 0, 1))
    assert first.documents == same.documents != other.documents
    assert list(first.documents) == sorted(first.documents)
    assert first.bytes == 2100
    assert first.notes == (
        f"{file}: 2,100 of 10,000 bytes of general text drawn (seed 0), 105 of 500 documents",
    )
    # From all of the file, not from its beginning: the chance of none above 400 is below 1e-9.
    assert first.documents[-1] > "document number 0400"


def test_one_document_is_taken_however_large(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("a first document\n\na second document", "utf-8")
    assert len(read_general_text(file, size=3)) == 1


def test_digests_tell_documents_apart(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("a\n\nb\n\na", "utf-8")
    first, second, third = (text := read_general_text(file)).digests()
    assert first == third != second
    file.write_text("a\n\na\n\nb", "utf-8")
    assert read_general_text(file).digest() != text.digest()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("missing.txt", None, "there is no such file"),
        ("blank.txt", b" \n\n \n", "there is no text here"),
        ("latin.txt", "Gr\xfc\xdfe an alle".encode("latin-1"), "not UTF-8"),
        ("broken.txt.gz", b"no gzip", "cannot be read"),
        ("broken.txt.xz", b"no xz", "cannot be read"),
        ("page.pdf", b"%PDF", "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes | None, what: str) -> None:
    (tmp_path / "mising.txt").write_text("near", "utf-8")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what) as found:
        read_general_text(tmp_path / name)
    assert name in found.value.where
    if content is None:
        assert "mising.txt" in found.value.fix


@pytest.mark.parametrize(
    ("name", "fix"), [("atuo", "did you mean 'auto'?"), ("autp.txt", "did you mean 'auto.txt'?")]
)
def test_a_word_typed_wrong_is_not_asked_of_the_hub(
    name: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auto.txt").write_text("near", "utf-8")
    (tmp_path / "auto.txt").rename(tmp_path / ("auto.txt" if "." in name else "other.txt"))
    with pytest.raises(InputError, match="there is no such file") as found:
        read_general_text(name)
    assert found.value.fix == fix


def test_a_hub_id_that_is_like_no_word_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("datasets.load_dataset", lambda name, *_, **__: asked.append(name) or 1 / 0)
    for name in ("office", "off", "owner/auto"):
        with pytest.raises((InputError, ZeroDivisionError)):
            read_general_text(name)
    assert asked == ["office", "off", "owner/auto"]


def test_an_empty_folder_a_wrong_column_and_no_size_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no text"):
        read_general_text(tmp_path)
    file = tmp_path / "rows.csv"
    file.write_text("text,label\none,a\n", "utf-8")
    with pytest.raises(InputError, match="no column 'txt'") as found:
        read_general_text(file, column="txt")
    assert "did you mean 'text'" in found.value.fix
    with pytest.raises(UsageError, match="size is too small"):
        read_general_text(file, size=0)
