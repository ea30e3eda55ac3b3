"""Lines that tell how far a loop is."""

import pytest

from pegbox import _progress
from pegbox._progress import track


@pytest.mark.parametrize(("options", "unit"), [({}, "batches"), ({"unit": "repeats"}, "repeats")])
def test_it_says_what_it_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: dict[str, str], unit: str
) -> None:
    clock = iter(range(0, 1000, 11))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    assert list(track(["a", "b", "c"], "reading answers", **options)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[0] == f"reading answers: 1 of 3 {unit}, 22 s left"
