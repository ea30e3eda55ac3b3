"""Cells of trained rungs side by side on a Ray cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pegbox.comparison._cell import Terms, measure
from pegbox.comparison._contest import Answers
from pegbox.comparison._engines import Local, Measured
from pegbox.comparison._ladder import Contender
from pegbox.comparison._store import Store
from pegbox.errors import CapabilityError, InputError, PegboxError, RunError, UsageError
from pegbox.models import Base, load
from pegbox.training import hush

KINDS: dict[str, type[PegboxError]] = {
    kind.__name__: kind for kind in (CapabilityError, RunError, InputError, UsageError)
}


class OnRay:
    """Trained rungs on the cluster, all of them at once; what costs nearly nothing in this process.

    The cluster is the one that ``ray.init`` finds (an address in ``RAY_ADDRESS``, or one that was joined
    before), else a local one with all cores. Each worker loads the base by its name; what it saved comes back
    with its answers, so that no folder need be shared. Only this process writes to the store.

    Args:
        ray: The library.
        terms: What all cells share.
        store: Where they are kept.
        wanted: All rungs with their seeds.
    """

    def __init__(
        self, ray: Any, terms: Terms, store: Store, wanted: Sequence[tuple[Contender, Sequence[int]]]
    ) -> None:
        self._ray, self._terms, self._store = ray, terms, store
        self._local = Local(terms, store)
        self._wanted = [(one, seed) for one, seeds in wanted if one.trained for seed in seeds]
        self._running: dict[tuple[str, int], Any] | None = None
        self._own = False

    def cell(self, contender: Contender, seed: int, base_answers: Answers | None) -> Measured:
        """Wait for a cell and keep it; see :class:`Engine`."""
        if not contender.trained:
            return self._local.cell(contender, seed, base_answers)
        found = self._store.find(contender, seed)
        if found is not None:
            return found
        if self._running is None:
            self._running = self._start(base_answers)
        result = self._result(contender, seed)
        if "error" in result:
            raise KINDS[result["error"]](result["what"], **result["told"])
        told_already = self._terms.notes
        for note in (line for line in result["cell"].notes if line not in told_already):
            self._terms.say(f"  {contender.name}, seed {seed}: {note}")

        def fill(place: Path) -> Measured:
            for name, content in result["files"].items():
                path = place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return result["cell"], result["answers"]

        return self._store.keep(contender, seed, fill)

    def _result(self, contender: Contender, seed: int) -> dict[str, Any]:
        assert self._running is not None
        kinds = self._ray.exceptions
        try:
            found: dict[str, Any] = self._ray.get(self._running.pop((contender.name, seed)))
        except kinds.RayTaskError:
            raise  # a fault in this code, with its trace
        except kinds.RayError as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"the cluster lost its worker: {told}",
                where=f"{contender.name}, seed {seed}",
                fix="the same call measures what is missing",
            ) from None
        return found

    def close(self) -> None:
        """Cancel what nobody will ask for, and leave a cluster that was begun here."""
        for reference in (self._running or {}).values():
            self._ray.cancel(reference, force=True)
        if self._own:
            self._ray.shutdown()

    def _start(self, base_answers: Answers | None) -> dict[tuple[str, int], Any]:
        ray, terms = self._ray, self._terms
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
            self._own = True
        shares = {"num_cpus": 1, "num_gpus": 1 if terms.base.device.type == "cuda" else 0, "max_retries": 1}
        remote = ray.remote(**shares)(_work)
        shared = ray.put((replace(terms, base=_named(terms.base), say=hush), base_answers))
        return {
            (contender.name, seed): remote.remote(shared, contender, seed)
            for contender, seed in self._wanted
            if self._store.find(contender, seed) is None
        }


def _named(base: Base) -> Any:
    """How a worker loads the base: its weights do not travel."""
    formats = {"torch.float32": "float32", "torch.bfloat16": "bfloat16", "torch.float16": "float16"}
    name = Path(base.name)
    return (
        ("name", str(name.resolve()) if name.is_dir() else base.name),
        ("shown", base.name),
        ("dtype", formats[str(base.dtype)]),
        ("device", base.device.type),
        ("revision", base.revision),
        ("max_length", base.context),
        ("quantise", base.quantise),
    )


@lru_cache(maxsize=1)
def _loaded(named: tuple[tuple[str, Any], ...]) -> Base:
    options = dict(named)
    shown = options.pop("shown")
    return replace(load(options.pop("name"), **options), name=shown)


def _work(shared: tuple[Any, Answers | None], contender: Contender, seed: int) -> dict[str, Any]:
    """Measure a cell in a worker; errors travel as values, since their classes take more than a message."""
    from pegbox.models import quiet_libraries

    quiet_libraries()
    terms, base_answers = shared
    with tempfile.TemporaryDirectory(prefix="pegbox-") as temporary:
        place = Path(temporary)
        try:
            whole = replace(terms, base=_loaded(terms.base))
            cell, answers = measure(whole, contender, seed, place, base_answers=base_answers)
        except PegboxError as error:
            told = {"where": error.where, "expected": error.expected, "fix": error.fix}
            kind = next(name for name, kind in KINDS.items() if isinstance(error, kind))
            return {"error": kind, "what": error.what, "told": told}
        files = {
            path.relative_to(place).as_posix(): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file()
        }
    return {"cell": cell, "answers": answers, "files": files}
