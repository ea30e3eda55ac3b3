"""Where cells are measured: one after another in this process, or side by side on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pegbox.comparison._cell import Terms, measure
from pegbox.comparison._contest import Answers
from pegbox.comparison._ladder import Contender
from pegbox.comparison._result import Cell
from pegbox.comparison._store import Store
from pegbox.errors import CapabilityError

Measured = tuple[Cell, Answers]


class Engine(Protocol):
    """Measures cells."""

    def cell(self, contender: Contender, seed: int, base_answers: Answers | None) -> Measured:
        """A finished cell, from the store where it lies there.

        Args:
            contender: The rung.
            seed: The seed.
            base_answers: What the base answers to the test rows.
        """

    def close(self) -> None:
        """Stop what is still running; nobody will ask for it."""


class Local:
    """One cell after another in this process.

    Args:
        terms: What all cells share.
        store: Where they are kept.
    """

    def __init__(self, terms: Terms, store: Store) -> None:
        self.terms, self.store = terms, store

    def cell(self, contender: Contender, seed: int, base_answers: Answers | None) -> Measured:
        """Measure unless it is kept already; see :class:`Engine`."""
        found = self.store.find(contender, seed)
        if found is not None:
            return found
        work = self.store.work(contender, seed) if contender.trained else None

        def fill(place: Path) -> Measured:
            return measure(self.terms, contender, seed, place, work=work, base_answers=base_answers)

        return self.store.keep(contender, seed, fill)

    def close(self) -> None:
        """Nothing runs."""


def engine_of(
    name: str, terms: Terms, store: Store, wanted: Sequence[tuple[Contender, Sequence[int]]]
) -> Engine:
    """The engine of a name.

    Args:
        name: ``local`` or ``ray``.
        terms: What all cells share.
        store: Where they are kept.
        wanted: All rungs with their seeds, in the order in which they will be asked for.

    Raises:
        CapabilityError: When Ray is not installed.
    """
    if name == "local":
        return Local(terms, store)
    try:
        import ray
    except ImportError:
        raise CapabilityError(
            "the engine ray needs Ray, which is not installed",
            where="engine ray",
            fix="pip install 'pegbox[ray]', or leave the engine at local",
        ) from None
    from pegbox.comparison._ray import OnRay

    cluster: Any = ray
    return OnRay(cluster, terms, store, wanted)
