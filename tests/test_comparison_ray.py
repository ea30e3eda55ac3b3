"""The same comparison on a real local Ray cluster."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comparison_runs import compared
from pegbox.comparison._ladder import Contender
from pegbox.comparison._ray import OnRay
from pegbox.errors import CapabilityError, RunError
from pegbox.methods import LoRA
from tuning_toy import folder_of


@pytest.mark.slow  # a cluster takes longer to begin than its cells
def test_ray_gives_the_same_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray: Any = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    # Workers import what the tests import.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    base = folder_of("llama", "causal")
    methods = ("majority", "zero-shot", "qlora", "lora", "ia3")
    told: list[str] = []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        far = compared(base, tmp_path / "far", methods=methods, engine="ray", patience=1, say=told.append)
    finally:
        ray.shutdown()
    near = compared(base, tmp_path / "near", methods=methods, patience=1)
    assert {rung.name for rung in far.rungs} == {rung.name for rung in near.rungs}
    for one in far.rungs:
        other = near.rung(one.name)
        assert one.metrics == other.metrics, one.name
        assert [cell.seed for cell in one.cells] == [cell.seed for cell in other.cells]
        assert (tmp_path / "far" / (one.typical.folder or "none") / "pegbox.json").is_file() == (
            one.typical.folder is not None
        )
    assert any("seed 1" in line for line in told)


def test_without_ray_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CapabilityError, match=r"pip install 'pegbox\[ray\]'"):
        compared(folder_of("llama", "causal"), tmp_path / "out", engine="ray")


def test_a_lost_worker_is_told_as_a_failure_of_its_rung() -> None:
    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        pass

    class Cluster:
        exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

        def get(self, reference: Exception) -> None:
            raise reference

    lora = Contender("lora", LoRA())
    nothing: Any = None
    engine = OnRay(Cluster(), nothing, nothing, ())
    engine._running = {("lora", 0): RayError("killed\nfor memory"), ("lora", 1): RayTaskError("a fault")}
    with pytest.raises(RunError, match="lost its worker: killed") as caught:
        engine._result(lora, 0)
    assert caught.value.where == "lora, seed 0"
    with pytest.raises(RayTaskError):
        engine._result(lora, 1)
