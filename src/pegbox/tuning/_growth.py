from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pegbox.data import Examples
from pegbox.errors import CapabilityError
from pegbox.methods import Problem
from pegbox.models import encode
from pegbox.tuning._seen import row_digests

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


def grown(tuned: Tuned, rows: Examples) -> Tuned:
    """A tuned model with further rows; see :meth:`Tuned.add_rows`."""
    if tuned.grow is None:
        raise CapabilityError(
            f"this {tuned.method.name} model takes no further rows",
            expected="a closed-form fit by the squared loss, as fit returned it and not streamed",
            fix="fit again on all rows",
        )
    gold = torch.tensor(tuned.prompt.task.gold(rows), dtype=torch.long)
    options = {"too_long": tuned.too_long, "cache": tuned.cache, "say": tuned.say}
    encoded = encode(tuned.base, tuned.prompt, rows, **options)  # type: ignore[arg-type]
    for note in encoded.notes():
        tuned.say(note)
    started = time.perf_counter()
    problem = Problem(tuned.base, tuned.prompt, rows, gold, encoded, 0, tuned.cache, tuned.say)
    solved = tuned.grow(problem)
    cost = replace(
        tuned.cost,
        seconds=tuned.cost.seconds + time.perf_counter() - started,
        rows=tuned.cost.rows + len(rows),
    )
    if tuned.averaged:
        tuned.say(
            "the posterior is of the rows before these, and no longer in use; fit again on all to have one"
        )
    features = None if tuned.features is None else torch.cat([tuned.features, problem.features.hidden])
    return replace(
        tuned,
        module=solved.module,
        posterior=solved.posterior,
        laplace=None,
        averaged=False,
        details=solved.details,
        cost=cost,
        training_rows=tuned.training_rows | frozenset(row_digests(rows)),
        features=features,
        provenance=known.grown(tuned.prompt.task, rows) if (known := tuned.provenance) else None,
        grow=solved.grow,
    )
