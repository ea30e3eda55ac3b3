from pathlib import Path

import pytest

from pegbox import data

FOLDER = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the development data is not beside the repository"
)


@needs_data
@pytest.mark.parametrize(
    ("name", "texts", "labels"),
    [
        ("sst2", ("text",), ("negative", "positive")),
        ("sms_spam", ("text",), ("ham", "spam")),
        ("financial_phrasebank", ("text",), ("negative", "neutral", "positive")),
        ("boolq_closed", ("question",), ("no", "yes")),
        ("snli", ("premise", "hypothesis"), ("contradiction", "entailment", "neutral")),
    ],
)
def test_columns_of_public_sets_are_guessed(
    name: str, texts: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    tables = {part: data.read(FOLDER / name / f"{part}.jsonl") for part in ("train", "valid", "test")}
    columns = data.find_columns(tables["train"])
    assert (columns.texts, columns.label) == (texts, "label")
    found = data.examples(tables["train"], columns)
    assert found.label_names == labels
    assert len(found) == len(tables["train"])
    parts = data.split(found, fractions={"train": 0.9, "valid": 0.1})
    assert abs(len(parts["valid"]) - len(found) / 10) <= len(found) / 100
    findings = data.check(tables["test"], columns, others={"valid": tables["valid"]})
    assert findings.errors == ()
