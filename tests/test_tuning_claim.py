"""The folder of a run: whose it is, and what may lie there."""

from pathlib import Path

import pytest

from pegbox.errors import UsageError
from pegbox.tuning._claim import check_own, claimed, release


def test_curves_of_a_finished_fit_do_not_block_the_next_one(tmp_path: Path) -> None:
    """TensorBoard writes into runs/ of the run's folder, where releasing it leaves them."""
    with claimed(tmp_path / "run", {"seed": "0"}, resume=False):
        (tmp_path / "run" / "runs").mkdir()
        (tmp_path / "run" / "runs" / "events").write_text("curve")
    release(tmp_path / "run")
    assert (tmp_path / "run" / "runs" / "events").read_text() == "curve"
    check_own(tmp_path / "run")
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="taken by something else"):
        check_own(tmp_path / "run")
