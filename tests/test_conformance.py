"""Methods x architectures: the same checks for each, holes explicit with their reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance import FAMILIES, Case, base_of, case_of
from conformance_checks import CHECKS, CHECKS_OF_FILES, ReadAgain, hole, method_of
from pegbox.errors import CapabilityError
from pegbox.methods import Attached, methods

METHODS = [name for name, method in methods().items() if issubclass(method, Attached)]
CASES = [(name, family) for name in METHODS for family in FAMILIES if not hole(name, family)]
HOLES = [(name, family) for name in METHODS for family in FAMILIES if hole(name, family)]
each = pytest.mark.parametrize(("name", "family"), CASES, ids=[f"{n}-{f}" for n, f in CASES])


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
def again(tmp_path_factory: pytest.TempPathFactory) -> ReadAgain:
    return ReadAgain.of(CASES, tmp_path_factory.mktemp("saved"))


@each
def test_a_fresh_process_gives_the_same_answers(name: str, family: str, again: ReadAgain) -> None:
    again.check(name, family, "pegbox")


@each
def test_plain_peft_loads_it(name: str, family: str, again: ReadAgain) -> None:
    again.check(name, family, "peft")


@pytest.mark.parametrize(("name", "family"), HOLES, ids=[f"{n}-{f}" for n, f in HOLES])
def test_holes_are_refused_with_their_reason(name: str, family: str) -> None:
    with pytest.raises(CapabilityError) as refused:
        method_of(name).check(base_of(family, quantise=method_of(name).quantise))
    assert str(hole(name, family)) in str(refused.value)


def test_the_rows_of_the_table_are_those_that_run() -> None:
    """A capability row names exactly the architectures on which the checks above ran."""
    for name in METHODS:
        ran = {FAMILIES[family][0] for method, family in CASES if method == name}
        assert set(methods()[name].capability.architectures) == ran, name


def test_cases_are_not_empty() -> None:
    assert len(CASES) >= len(METHODS) * 5
    assert isinstance(case_of(method_of(METHODS[0]), "llama"), Case)
