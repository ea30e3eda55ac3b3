import csv
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pegbox import data
from pegbox.errors import InputError

# what type inference would change: missing marks, leading zeros, dates, booleans, spaces, quotes, line breaks
TRAPS = ["None", "NA", "null", "nan", "007", "1.0", "1e5", "2020-01-01", "TRUE", " a ", "", '"', 'say "hi"',
         "a,b", "x\ny", "x\r\ny", "tab\there", "a;b", "naïve", "日本語", "🙂", "\u2028", "#", "'",
         "\\n"]  # fmt: skip


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fails(path: Path | str, *parts: str, **options: str) -> None:
    with pytest.raises(InputError) as caught:
        data.read(path, **options)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".csv", "|"), (".tsv", "\t")]
)
@pytest.mark.parametrize("seed", range(8))
def test_random_cells_come_back_as_written(tmp_path: Path, suffix: str, delimiter: str, seed: int) -> None:
    source = random.Random(seed)
    names = ["text", "label", "extra"][: source.choice([2, 3])]
    alphabet = [*TRAPS, *"abc ,;'\"\n|"]
    rows = [["".join(source.choices(alphabet, k=source.randrange(4))) for _ in names] for _ in range(40)]
    rows.append([TRAPS[seed], "last"] + ["z"] * (len(names) - 2))
    path = tmp_path / f"t{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=source.choice(["\n", "\r\n"]))
        writer.writerow(names)
        writer.writerows(rows)
    table = data.read(path)
    assert table.names == tuple(names)
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == rows
    assert table.numbers == tuple(range(1, len(rows) + 1))


def test_cells_keep_what_type_inference_would_change(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", "text,label\n" + "".join(f"{cell},x\n" for cell in ("None", "007", "2020-01-01"))
    )
    assert data.read(path).columns["text"] == ("None", "007", "2020-01-01")


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", b'\xef\xbb\xbftext,label\r\n"a\r\nb",x\r\nc,y\r\n'))
    assert table.columns == {"text": ("a\r\nb", "c"), "label": ("x", "y")}


def test_separator_is_sniffed_and_said(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", "text;label\ngood, really;1\nbad;0\n"))
    assert table.columns["text"] == ("good, really", "bad")
    assert table.notes == ("cells are separated by semicolon (';'), not by comma",)


def test_a_first_line_for_excel_names_the_separator(tmp_path: Path) -> None:
    found = data.read(write(tmp_path / "t.csv", "sep=;\r\ntext;label\r\na, b;x\r\n"))
    assert found.columns == {"text": ("a, b",), "label": ("x",)}
    assert any("sep=;, is read as Excel reads it" in note for note in found.notes)
    fails(write(tmp_path / "u.csv", "sep=;\ntext;label\na;x\nb\n"), "row 2 (line 4) has 1")


def test_lines_of_spaces_are_blank(tmp_path: Path) -> None:
    found = data.read(write(tmp_path / "t.csv", "text,label\na,x\n   \nb,y\n\t\n"))
    assert found.columns["text"] == ("a", "b")
    assert "2 blank lines skipped" in found.notes
    # Of one column they are rows without text.
    found = data.read(write(tmp_path / "u.csv", 'text\n"a b"\n""\n" "\nx\n""\n'))
    assert found.columns["text"] == ("a b", "", " ", "x", "")


def test_lines_may_end_as_on_old_macs(tmp_path: Path) -> None:
    found = data.read(write(tmp_path / "t.jsonl", '{"a": "b"}\r{"a": "c"}\r'))
    assert found.columns["a"] == ("b", "c")
    found = data.read(write(tmp_path / "t.conll", "Ann B-PER\rleft O\r\rBo B-PER\r"))
    assert found.columns["tokens"] == (["Ann", "left"], ["Bo"])
    found = data.read(write(tmp_path / "u.conll", "Ann B-PER\r\r\nleft O\r\r\n\r\r\nBo B-PER\r\r\n"))
    assert found.columns["tokens"] == (["Ann", "left"], ["Bo"])


def test_comments_of_conll_files_are_passed_over(tmp_path: Path) -> None:
    text = "# newdoc\n# sent_id = 1\n# text = Ann left # 5\nAnn B-PER\nleft O\n# O\n5 O\n"
    found = data.read(write(tmp_path / "t.conll", text))
    assert found.columns["tokens"] == (["Ann", "left", "#", "5"],)
    assert "3 comments passed over (lines such as # sent_id = 7)" in found.notes
    text = "see\tPOS=V\tO\n#\tPOS=SYM\tB-X\n#a=b\tx\tO\n#newdoc\tx\tO\n# newdoc\tx\tO\n"
    found = data.read(write(tmp_path / "u.conll", text))
    assert found.columns["tokens"] == (["see", "#", "#a=b", "#newdoc", "# newdoc"],)


def test_single_column_with_semicolons_stays_one_column(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", "text\none; two\nthree; four\n"))
    assert table.columns == {"text": ("one; two", "three; four")}


def test_blank_lines_are_skipped_and_said(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", "text,label\n\na,x\n\n\nb,y\n\n"))
    assert table.numbers == (1, 2)
    assert table.notes == ("3 blank lines skipped",)


def test_spaces_around_column_names_are_removed_and_said(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", "text, label\na,x\n"))
    assert table.names == ("text", "label")
    assert table.notes == ("spaces around column names removed",)


def test_cells_longer_than_the_csv_default_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    table = data.read(write(tmp_path / "t.csv", f"text,label\n{'a' * (before + 1)},x\n"))
    assert len(str(table.columns["text"][0])) == before + 1
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("text", ['"good film\tpos\nbad "film"\tneg\n', '"good\tpos\nfilm"\tneg\n'])
def test_tsv_that_does_not_quote_keeps_its_quotes(tmp_path: Path, text: str) -> None:
    table = data.read(write(tmp_path / "t.tsv", "text\tlabel\n" + text))
    assert table.columns["label"] == ("pos", "neg")
    assert str(table.columns["text"][0]).startswith('"good')
    assert "quotes are part of the cells" in table.notes[0]


def test_json_shapes_and_types(tmp_path: Path) -> None:
    rows = [{"text": "2020-01-01T00:00:00", "label": 1}, {"text": None, "label": True}, {"text": "a\u2028b"}]
    expected = {"text": ("2020-01-01T00:00:00", None, "a\u2028b"), "label": (1, True, None)}
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    shapes = {
        "list.json": json.dumps(rows),
        "columns.json": json.dumps(expected),
        "lines.jsonl": lines,
        "lines.json": lines,
    }
    for name, text in shapes.items():
        table = data.read(write(tmp_path / name, text))
        assert table.columns == expected
        assert type(table.columns["label"][1]) is bool
    assert "one JSON object per line" in table.notes
    assert "keys that some rows lack, read as missing: label" in table.notes


def test_gzip(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n\n{"text": "b", "label": 2}')
    )
    assert data.read(path).columns == {"text": ("a", "b"), "label": (1, 2)}
    fails(write(tmp_path / "bad.csv.gz", path.read_bytes()[:-9]), "cannot be read")


def test_parquet_with_class_names_and_categories(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    info = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    columns = {
        "text": ["007", "NA", "c"],
        "label": [1, 0, -1],
        "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, tmp_path / "t.parquet")
    read = data.read(tmp_path / "t.parquet")
    assert read.columns == {
        "text": ("007", "NA", "c"),
        "label": ("pos", "neg", None),
        "kind": ("x", "y", "x"),
    }
    assert "class numbers read as the names stored with them (neg, pos)" in read.notes[0]
    whole = (tmp_path / "t.parquet").read_bytes()
    fails(write(tmp_path / "cut.parquet", whole[: len(whole) // 2]), "no whole parquet file", "cut.parquet")


def test_select_keeps_row_numbers(tmp_path: Path) -> None:
    table = data.read(write(tmp_path / "t.csv", "text\na\nb\nc\n")).select([2, 0])
    assert (table.columns["text"], table.numbers, len(table)) == (("c", "a"), (3, 1), 2)


def test_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "text\na\n")
    fails(tmp_path / "review.csv", "There is no such file", "review.csv", "did you mean 'reviews.csv'?")
    fails(tmp_path / "nowhere" / "a.csv", "There is no folder")


def test_folder_names_its_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text\na\n")
    fails(tmp_path, "This is a folder", "name one of its files: train.csv")


def test_unsupported_kind(tmp_path: Path) -> None:
    fails(write(tmp_path / "t.xlsx", "x"), "Files of kind '.xlsx' cannot be read", ".csv, .tsv, .json")
    fails(write(tmp_path / "t.txt", "x"), "kind '.txt' cannot be read", 'a row of a .jsonl file: {"text"')


def test_split_of_a_file(tmp_path: Path) -> None:
    fails(write(tmp_path / "t.csv", "text\na\n"), "split or revision was given for a file", split="train")


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("t.csv", "", ("This file is empty",)),
        ("t.jsonl", "\n \n", ("This file is empty",)),
        ("t.csv", "text,label\n", ("a header but no rows", "text, label")),
        ("t.csv", "\ntext,label\na,x\n", ("first line of this file is blank", "line 1")),
        ("t.csv", "text,text\na,b\n", ("Column names are repeated: 'text'",)),
        (
            "t.csv",
            'text,label\n"a\nb",x\nc,d,e\nf\n',
            ("2 rows with more or fewer cells", "rows 2, 3; row 2 (line 4) has 3", "2 cells: text, label"),
        ),
        ("t.csv", 'text,label\na,x\n"b,y\nc,z\n', ("quoting of this file is broken", "row 2", "line 3")),
        ("t.csv", 'text,label\n"a" b,x\n', ("quoting of this file is broken", "row 1", "line 2")),
        ("t.json", '[{"text": "a"},\n{"text" "b"}]', ("not valid JSON", "line 2, column 9")),
        ("t.json", '[{"text": "a"}, 3]', ("A row is a number, not an object", "row 2")),
        ("t.json", '{"data": {"text": ["a"]}}', ("no table: the value of 'data' is an object",)),
        ("t.json", '"hello"', ("no table: it is a string",)),
        ("t.json", '{"text": ["a", "b"], "label": [1]}', ("differ in length: text 2, label 1",)),
        ("t.json", "[]", ("no rows",)),
        ("t.json", '{"text": []}', ("no rows",)),
        ("t.json", '[{"text": "a", "text": "b"}]', ("A key is repeated in one object: 'text'",)),
        ("t.jsonl", '{"text": "a"}\n\n{"text": }\n', ("not valid JSON", "line 3")),
        ("t.jsonl", '{"text": "a"}\n["b"]\n', ("A row is a list, not an object", "line 2")),
        ("t.jsonl", '{"a": 1, "a": 2}\n', ("A key is repeated", "line 1")),
        ("t.jsonl", '{"a": 1}\n{"a": ' + "1" * 5000 + "}\n", ("a number too long to be read", "line 2")),
        ("t.jsonl", "[" * 100_000 + "]" * 100_000, ("nested too deeply to be read", "line 1")),
        ("t.json", '[{"a": ' + "1" * 5000 + "}]", ("a number too long to be read",)),
        ("t.parquet", "text,label", ("no whole parquet file",)),
    ],
)  # fmt: skip
def test_malformed_files(tmp_path: Path, name: str, text: str, parts: tuple[str, ...]) -> None:
    fails(write(tmp_path / name, text), name, *parts)


@pytest.mark.parametrize(
    ("codec", "likely"), [("cp1252", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16")]
)
def test_wrong_encoding_names_place_and_likely_codec(tmp_path: Path, codec: str, likely: str) -> None:
    path = write(tmp_path / "t.csv", "text,label\nplain,x\ncafé €5,y\n".encode(codec))
    fails(path, "not UTF-8", f"this looks like {likely}", f"iconv -f {likely} -t utf-8")
    if codec == "cp1252":
        fails(path, "line 3, byte 22")


def test_a_binary_file_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(bytes(range(128, 256)) * 4 + b"\0")
    fails(path, "This file is no text", "zero bytes", "such as .parquet")


def test_hub_goes_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )

    def load(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split, revision))
        if split == "tset":
            raise ValueError('Unknown split "tset". Should be one of ["train", "test"].')
        return datasets.Dataset.from_dict({"text": ["007", "b"], "label": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    table = data.read("owner/set:plain[test]", revision="abc")
    assert table.source == "owner/set:plain[test]"
    assert table.columns == {"text": ("007", "b"), "label": ("yes", "no")}
    assert "split 'train' (none was named)" in data.read("set").notes
    data.read("owner/set[train[:10%]]")
    assert asked == [
        ("owner/set", "plain", "test", "abc"), ("set", None, "train", None),
        ("owner/set", None, "train[:10%]", None),
    ]  # fmt: skip
    fails("owner/set", 'Unknown split "tset"', '["train", "test"]', split="tset")


def test_hub_without_network_is_one_clear_error(tmp_path: Path) -> None:
    code = (
        "from pegbox import data\nfrom pegbox.errors import InputError\n"
        "try: data.read('owner/set')\nexcept InputError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert "no reachable hub data set of this name" in done.stdout
    assert "owner/set[train]" in done.stdout
    assert "without a network give a file" in done.stdout


def test_import_loads_no_heavy_library() -> None:
    heavy = ["torch", "datasets", "pandas", "pyarrow", "numpy"]
    code = f"import sys, pegbox.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
