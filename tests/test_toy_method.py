"""A new method is one module that registers it: a toy from outside the package does all that others do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pegbox
from conformance import FAMILIES, folder_of
from conformance_checks import CHECKS, CHECKS_OF_FILES, ReadAgain, hole
from estimate_toy import MEASURED
from pegbox.cli import main
from pegbox.comparison import _estimate, estimate
from pegbox.comparison._ladder import contenders
from pegbox.comparison._rules import Facts
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import _registry, build, methods, register, table_markdown
from pegbox.tuning import merge
from tuning_toy import fit, hush, rows_of, task_of

NAME = "output-gate"
FAST = ("llama", "bert-encoder")
CASES = [(NAME, family) for family in FAMILIES]
each = pytest.mark.parametrize(
    ("name", "family"),
    [pytest.param(*case, id=case[1], marks=() if case[1] in FAST else pytest.mark.slow) for case in CASES],
)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    """The toy is known while these tests run, and to no other test of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_registry, "_METHODS", dict(methods()))
        from output_gate import OutputGate

        register(OutputGate)
        yield


@each
@pytest.mark.parametrize("check", CHECKS)
def test_it_conforms(check: Callable[[str, str], None], name: str, family: str) -> None:
    check(name, family)


@each
@pytest.mark.parametrize("check", CHECKS_OF_FILES)
def test_its_files_conform(
    check: Callable[[str, str, Path], None], name: str, family: str, tmp_path: Path
) -> None:
    check(name, family, tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Python packages that tells of the toy as an installed distribution does."""
    folder = tmp_path_factory.mktemp("packages")
    told = folder / "output_gate-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: output-gate\nVersion: 1.0\n", "utf-8")
    (told / "entry_points.txt").write_text(f"[pegbox.methods]\n{NAME} = output_gate\n", "utf-8")
    return folder


@pytest.mark.parametrize(
    "families", [FAST, pytest.param(tuple(FAMILIES), marks=pytest.mark.slow)], ids=["fast", "all"]
)
def test_a_fresh_process_finds_the_installed_method_and_loads_it(
    families: tuple[str, ...], installed: Path, tmp_path: Path
) -> None:
    again = ReadAgain.of([(NAME, family) for family in families], tmp_path, PYTHONPATH=str(installed))
    for family in families:
        again.check(NAME, family, "pegbox")
        again.check(NAME, family, "peft")


def test_its_row_names_the_architectures_that_conform() -> None:
    assert not [family for family in FAMILIES if hole(NAME, family)]
    assert {architecture for architecture, _ in FAMILIES.values()} == set(
        methods()[NAME].capability.architectures
    )


def test_the_command_line_lists_fits_and_loads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    told = capsys.readouterr().out
    assert f"\n{NAME} " in told
    assert f"  {NAME}: scale" in told.splitlines()
    rows, data, out = rows_of(60), tmp_path / "rows.csv", tmp_path / "out"
    lines = [f'"{text}",{label}' for (text,), label in zip(rows.texts, rows.labels, strict=True)]
    data.write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    fixed = ["--no-cache", "--training.max_steps", "2", "--label-words", "bad=terrible,fine=okay"]
    wish = ["--model", str(folder_of("llama")), "--method", NAME, "--options.scale", "0.5", "--out", str(out)]
    assert main(["fit", str(data), *wish, *fixed]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert pegbox.Tuned.load(out, say=hush).method == build(NAME, {"scale": 0.5})
    assert main(["predict", str(out), str(data), "--no-cache"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 61
    assert main(["fit", str(data), *wish, "--options.scle", "2"]) == 2
    assert "did you mean 'scale'?" in capsys.readouterr().err


def test_the_table_of_methods_and_the_errors_know_it(tmp_path: Path) -> None:
    assert f"## {NAME}\n" in table_markdown()
    with pytest.raises(UsageError, match=f"there is no method 'output-gat'.*\n.*{NAME}"):
        build("output-gat")
    base = pegbox.load(folder_of("llama"))
    tuned = fit(base, "zero-shot", rows_of(20))
    with pytest.raises(CapabilityError, match=f"an adapter by one of .*{NAME}"):
        merge(tuned, tmp_path)


def test_it_is_merged_climbed_and_estimated_as_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, training = pegbox.load(folder_of("llama")), pegbox.Training(max_steps=2, precision="float32")
    merged = merge(fit(base, NAME, rows_of(20), training=training), tmp_path / "merged")
    assert merged.max_change < 1e-4  # two orders of the same float32 sums
    assert NAME in [rung.name for rung in contenders(task_of())]
    monkeypatch.setattr(_estimate.Calibration, "measured", lambda *_, **__: MEASURED)
    costs = estimate(base, task_of(), NAME, rows_of(20))
    assert costs.feasible
    assert costs.seconds
    # The advice takes it for one that trains inside the model, though no rule names it.
    known = Facts("classify", words=True, rows=20, fits=[NAME], heavy=(), slow=(), pilot=None)
    assert known.trainable
