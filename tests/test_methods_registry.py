"""The registry, the capability table, and the page made from it."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

import pegbox
from pegbox.errors import CapabilityError, RunError, UsageError
from pegbox.methods import (
    Attached,
    Capability,
    FewShot,
    Problem,
    Solved,
    Solver,
    ZeroShot,
    _registry,
    build,
    methods,
    register,
    table_markdown,
    table_rows,
)
from pegbox.models import encode
from pegbox.tasks import Kind
from tuning_toy import base_of, fit, hush, rows_of

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
TOY = Capability(
    summary="nothing, but tells",
    kinds=("causal",),
    refusals={
        "masked": "use zero-shot",
        "encoder": "use closed-form",
        "encoder-decoder": "use closed-form",
    },
    trains=False,
    mergeable=False,
    quantised=True,
    inference="none",
    parameters="0",
    source="this test",
)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_METHODS", dict(methods()))


def test_methods_are_found_by_looking() -> None:
    modules = {
        path.stem
        for path in (Path(inspect.getfile(_registry)).parent).glob("*.py")
        if not path.name.startswith("_")
    }
    assert {name.replace("-", "_") for name in methods()} == modules
    assert {"closed-form", "few-shot", "lora", "zero-shot"} <= set(methods())


@pytest.mark.parametrize("name", methods())
def test_the_capability_table_is_complete(name: str) -> None:
    method, row = methods()[name], methods()[name].capability
    assert method.name == name
    assert issubclass(method, Attached if row.trains else Solver)
    kinds = set(get_args(Kind))
    assert set(row.kinds) | set(row.refusals) == kinds
    assert not set(row.kinds) & set(row.refusals)
    assert (row.learning_rate is not None) == row.trains
    for text in (row.summary, row.inference, row.parameters, row.source):
        assert text.strip() == text != ""
    options = build(name).options()
    assert options.keys() == {item.name for item in fields(method)}
    assert build(name, options) == build(name)


def test_the_table_has_a_row_per_method_and_a_cell_per_column() -> None:
    rows = table_rows()
    assert [row["method"] for row in rows] == list(methods())
    assert len({tuple(row) for row in rows}) == 1
    assert all(all(row.values()) for row in rows)
    lora = next(row for row in rows if row["method"] == "lora")
    assert lora["trained"] == "yes, peak rate 0.001, a head on tokens 0.003"
    assert lora["starts at the base"] == "yes"
    assert "gemma3_text" in lora["seen working on"]


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text("utf-8") == table_markdown(), (
        "write pegbox.methods.table_markdown() to docs/methods.md"
    )


def test_the_page_describes_every_option() -> None:
    page = table_markdown()
    for name, method in methods().items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for item in fields(method):
            line = next(line for line in section.splitlines() if line.startswith(f"| {item.name} |"))
            assert f"| `{item.default}` |" in line
            assert len(line.split("|")[3].strip()) > 10
        for kind in method.capability.refusals:
            assert f"Not on {kind}" in section


@pytest.mark.usefixtures("registry")
def test_a_method_from_elsewhere_works_with_fit(tmp_path: Path) -> None:
    @register
    @dataclass(frozen=True)
    class Echo(Solver):
        """Tell how many rows there are.

        Args:
            word: What to tell.
        """

        word: str = "rows"
        name: ClassVar[str] = "echo"
        capability: ClassVar[Capability] = TOY

        def solve(self, problem: Problem) -> Solved:
            problem.say(f"{len(problem.rows)} {self.word}")
            return Solved(
                problem.prompt, details={"width": problem.features.hidden.shape[1], "odd": float("nan")}
            )

    told: list[str] = []
    tuned = fit(base_of("llama"), "echo", rows_of(8), say=told.append)
    assert "8 rows" in told
    assert tuned.details["width"] == 32
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", model=tuned.base, say=hush)
    assert again.method == Echo()
    assert again.details == {"width": 32, "odd": None}
    assert "## echo" in table_markdown()
    with pytest.raises(CapabilityError, match="echo cannot work on a masked model") as error:
        fit(base_of("bert", "masked"), "echo", rows_of(8))
    assert "use zero-shot" in str(error.value)


@pytest.mark.usefixtures("registry")
def test_an_attached_method_from_elsewhere_is_trained_and_saved(tmp_path: Path) -> None:
    @register
    @dataclass(frozen=True)
    class Scale(Attached):
        """Scale keys and values (IA3 by PEFT)."""

        name: ClassVar[str] = "scale"
        capability: ClassVar[Capability] = Capability(
            **{
                **{item.name: getattr(TOY, item.name) for item in fields(TOY)},
                "trains": True,
                "learning_rate": 1e-2,
            }
        )

        def attach(self, base: Any, prompt: Any, *, seed: int) -> Any:  # noqa: ARG002
            from peft import IA3Config, get_peft_model

            config = IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])
            return get_peft_model(base.module(len(prompt.task.labels)), config)

    tuned = fit(
        base_of("llama"), "scale", rows_of(8), training=pegbox.Training(epochs=2, precision="float32")
    )
    assert tuned.cost.parameters == 2 * 2 * 16  # two layers, keys and values, width 8 of two heads each
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", model=tuned.base, say=hush)
    assert (again.probabilities(rows_of(4)) == tuned.probabilities(rows_of(4))).all()


@pytest.mark.usefixtures("registry")
def test_a_module_that_is_no_adapter_is_told_on_saving(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(20))
    odd = pegbox.Tuned(tuned.base, tuned.prompt, tuned.method, tuned.base.module(2), None, {}, tuned.cost)
    with pytest.raises(CapabilityError, match="without a PEFT adapter cannot be saved"):
        odd.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("registry")
def test_a_name_is_given_once() -> None:
    assert register(ZeroShot) is ZeroShot
    with pytest.raises(UsageError, match="'zero-shot' is taken by pegbox"):

        @register
        @dataclass(frozen=True)
        class Again(Solver):
            name: ClassVar[str] = "zero-shot"
            capability: ClassVar[Capability] = TOY

    with pytest.raises(UsageError, match="the method Nameless has no name and no capability"):

        @register
        @dataclass(frozen=True)
        class Nameless(Solver):
            pass


def test_an_installed_method_that_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "broken-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", "utf-8")
    (told / "entry_points.txt").write_text("[pegbox.methods]\nbroken = no_such_module\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    _registry._import_installed.cache_clear()
    with pytest.raises(RunError, match="cannot be imported: ModuleNotFoundError") as error:
        methods()
    assert "entry point pegbox.methods: broken = no_such_module" in str(error.value)
    monkeypatch.undo()
    assert "lora" in methods()


def test_unknown_names_and_options_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no method 'closed_form'") as error:
        build("closed_form")
    assert "did you mean 'closed-form'?" in str(error.value)
    assert ", ".join(methods()) in str(error.value)
    with pytest.raises(UsageError, match="lora has no option 'ranks'") as error:
        build("lora", {"ranks": 4})
    assert "did you mean 'rank'?" in str(error.value)
    with pytest.raises(UsageError, match="zero-shot has no option 'rank'") as error:
        build("zero-shot", {"rank": 4})
    assert "no options" in str(error.value)


@pytest.mark.parametrize("name", ["zero-shot", "few-shot"])
def test_methods_without_a_head_refuse_encoders(name: str) -> None:
    with pytest.raises(
        CapabilityError, match=f"{name} cannot work on an encoder without an output layer"
    ) as error:
        fit(base_of("bert", "encoder"), name, rows_of(8))
    assert "expected: a causal, masked or encoder-decoder model" in str(error.value)
    assert "use closed-form or lora" in str(error.value)


def test_few_shot_shows_as_many_as_fit() -> None:
    base, told = base_of("llama"), []  # type: ignore[var-annotated]
    few = fit(base, FewShot(per_class=2), rows_of(20))
    assert len(few.prompt.task.demonstrations) == 4
    less = fit(base, FewShot(per_class=20), rows_of(60), say=told.append)
    shown = less.details["per_class"]
    assert 1 <= shown < 20
    assert f"{shown} instead of 20 demonstrations per class: the context holds 256 tokens" in told
    assert len(less.prompt.task.demonstrations) == 2 * shown


def test_few_shot_falls_back_on_the_shortest_rows() -> None:
    texts = tuple(["kettle tea " * 40] * 20 + ["great", "broke"])
    rows = pegbox.data.Examples("long", {"text": texts}, ("bad", "fine") * 11, tuple(range(22)))
    told: list[str] = []
    tuned = fit(base_of("llama"), "few-shot", rows, say=told.append, seed=1)
    assert [shown.fields["text"] for shown in tuned.prompt.task.demonstrations] == ["great", "broke"]
    assert "the shortest row of each class is shown: the context holds 256 tokens" in told
    longer = pegbox.data.Examples("long", {"text": texts[:20]}, ("bad", "fine") * 10, tuple(range(20)))
    with pytest.raises(CapabilityError, match="one demonstration per class does not fit"):
        fit(base_of("llama"), "few-shot", longer)


def test_few_shot_of_similar_rows_never_shows_the_row_itself() -> None:
    rows = rows_of(12, noise=0.0)
    tuned = fit(base_of("llama"), FewShot(per_class=1, selection="similar"), rows)
    encoded = encode(tuned.base, tuned.prompt, rows)
    own = tuned.prompt.with_demonstrations(()).encode(rows)
    texts = [tuned.base.tokenizer.decode(ids) for ids in encoded.ids]
    for text, row in zip(texts, rows.texts, strict=True):
        assert text.count(row[0]) == 1
    assert all(len(ids) > 2 * len(alone) for ids, alone in zip(encoded.ids, own.ids, strict=True))
