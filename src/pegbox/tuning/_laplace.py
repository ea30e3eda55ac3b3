"""A posterior for a tuned model, and what it says of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pegbox.data import Preferences, Questions, Rows
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import answer_tokens, output_scale, output_tail_slope, processes
from pegbox.tasks import Generate, Tag
from pegbox.training import hush
from pegbox.tuning._answers import Answers, answer, raw_logits
from pegbox.tuning._deviation import moments as closed_form_moments
from pegbox.tuning._seen import row_digests
from pegbox.tuning._shapes import Work, shape_of
from pegbox.uncertainty import (
    LAST,
    Grade,
    Place,
    Predictive,
    Scored,
    check_part,
    fit_laplace,
    places,
)

if TYPE_CHECKING:
    from pegbox.methods import Posterior
    from pegbox.tuning._tuned import Tuned


def laplace(
    tuned: Tuned,
    rows: str | Path | Rows | None = None,
    *,
    curvature: Grade = "exact",
    part: str = "all",
    prior_precision: float | None = None,
    prior_mean: str = "zero",
    valid: str | Path | Rows | None = None,
    roots: str = "exact",
    rank: int | None = 64,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Tuned:
    """Give a LoRA adapter a posterior, after it was tuned; probabilities are averaged over it from then on.

    Nothing about the adapter changes. A closed-form fit has its exact posterior already, and only begins to
    use it.

    Args:
        tuned: A model tuned by ``lora``, ``qlora`` or ``head``, an adapter from elsewhere, or a closed-form
            fit.
        rows: The rows that it was tuned on: file, hub id or rows. Those among them that it was not tuned on,
            as far as it knows, choose the precision.
        curvature: ``exact`` (the whole matrix; sketched where the gradients do not fit into memory),
            ``kron``, ``ekfac`` or ``diag``.
        part: Which weights are uncertain: ``all`` that the adapter has, its factors (``lora``), the ``head``,
            or ``last-N``: the whole weights of the top N layers, also after full fine-tuning.
        prior_precision: Chosen by held-out rows, else by the evidence, when not given.
        prior_mean: Around what the prior lies, which only the evidence asks: ``zero``, or the ``initial``
            values of LoRA's first factors and of whole weights.
        valid: Labelled rows that it was not tuned on, to choose the precision by.
        roots: ``mixed`` takes one backward pass instead of one per contrast, with random signs.
        rank: Directions that a Kronecker factor keeps of a wide side.
        seed: Of the random signs and the sketch.
        folder: Where to leave progress, to go on after an interruption.

    Raises:
        CapabilityError: For a model that has no such posterior.
        InputError: For rows that it was not tuned on.
        UsageError: For an unknown curvature or part, or a precision that is not above 0.
    """
    if tuned.posterior is not None:
        asked = (curvature, part, prior_precision, prior_mean, valid, roots)
        _check_closed_form(asked)
        return replace(tuned, averaged=True)
    spots = uncertain(tuned, part)
    if prior_mean != "zero":
        spots = around_initial(tuned, part, spots, prior_mean)
    if rows is None:
        raise UsageError(
            "the curvature is measured on the rows that the model was tuned on, and there are none",
            expected="the training rows",
            fix="name the training file",
        )
    read = tuned.read(rows) if isinstance(rows, str | Path) else rows
    own, others = split_rows(tuned, read)
    if valid is not None:
        others = tuned.read(valid) if isinstance(valid, str | Path) else valid
        _warn_seen(tuned, others)
    if others is not None and prior_precision is None and valid is None:
        tuned.say(f"{len(others)} rows of {read.source} were not tuned on: they choose the precision")
    held = scored(tuned, others) if others is not None and len(others) else None
    assert tuned.module is not None
    with processes.joined(tuned.base.device):
        found = fit_laplace(
            tuned.module,
            scored(tuned, own),
            spots,
            grade=curvature,
            part=part,
            precision=prior_precision,
            valid=None if prior_precision is not None else held,
            roots=roots,
            rank=rank,
            seed=seed,
            context=f"{tuned.base.fingerprint} {tuned.prompt.task.to_json()}",
            folder=None if folder is None else Path(folder),
            say=tuned.say if processes.rank() == 0 else hush,
        )
    found = replace(found, details={**found.details, "prior_mean": prior_mean})
    return replace(tuned, laplace=found, averaged=True)


def _check_closed_form(asked: tuple[Any, ...]) -> None:
    """Raise UsageError for what a closed-form fit's own posterior leaves no choice of."""
    names = ("curvature", "part", "prior_precision", "prior_mean", "valid", "roots")
    own = ("exact", "all", None, "zero", None, "exact")
    for name, value, only in zip(names, asked, own, strict=True):
        if value is not only and value != only:
            raise UsageError(
                "a closed-form fit has one posterior, whose prior is the penalty that it was solved with",
                where=f"{name} {value}",
                expected="no choice",
                fix=f"leave {name} out, or fit it again with another penalty",
            )


def uncertain(tuned: Tuned, part: str = "all") -> list[Place]:
    """The layers that a posterior of this model is over.

    Raises:
        CapabilityError: When it has none.
    """
    check_part(part)
    if tuned.module is None or (tuned.weights and not part.startswith(LAST)):
        raise CapabilityError(
            f"{tuned.method.name} leaves no adapter on the base to be uncertain of",
            where=tuned.base.name,
            expected="a model tuned by lora, qlora, head or closed-form",
            fix="tune with --method lora"
            if tuned.module is None
            else f"take the weights of the top layer (part {LAST}1), or tune with --method lora",
        )
    task = tuned.prompt.task
    if isinstance(task, Tag | Generate):
        given = (
            "a tagger gives one per word" if isinstance(task, Tag) else "free text is many answers in a row"
        )
        raise CapabilityError(
            f"a posterior is over one answer per row, and {given}",
            expected="a task that classifies or chooses",
            fix="judge the model by pegbox evaluate",
        )
    if len(tuned.prompt.draws) > 1:
        raise CapabilityError(
            "answers that are averaged over several draws of demonstrations have no one gradient",
            expected="one draw of demonstrations, or none",
            fix="tune without demonstrations",
        )
    tokens: Sequence[int] = ()
    if task.to_json()["task"] == "classify" and tuned.base.kind != "encoder":
        tokens = answer_tokens(tuned.prompt)
    return places(tuned.module, part, tokens=tokens)


def around_initial(tuned: Tuned, part: str, spots: Sequence[Place], mean: str) -> list[Place]:
    """The same layers with a prior around what they were before tuning.

    Raises:
        UsageError: For another middle than ``initial``, and where what they were is not known.
    """
    if mean != "initial":
        raise UsageError(f"there is no prior mean '{mean}'", where="prior_mean", expected="zero or initial")
    seed = tuned.details.get("seed")
    if tuned.origin is not None or (seed is None and not part.startswith(LAST)):
        raise UsageError(
            "what the weights were before tuning is not known",
            where="prior_mean initial",
            expected="an adapter of this version's own, or the base beside fully tuned weights",
            fix="leave the prior mean at zero",
        )
    if part.startswith(LAST):
        module = tuned.base.module(len(tuned.labels))
        before = [Place(spot.name, module.get_submodule(spot.name)) for spot in spots]
    else:
        method: Any = tuned.method
        module = method.attach(tuned.base, tuned.prompt, seed=seed)
        known = {spot.name: spot for spot in places(module, part)}
        before = [known[spot.name] for spot in spots]
    found = [replace(spot, prior=old.values()) for spot, old in zip(spots, before, strict=True)]
    return [replace(spot, prior=None) if spot.rows else spot for spot in found]


def scored(tuned: Tuned, rows: Any, *, labelled: bool = True) -> Scored:
    """Rows as the posterior sees them, told what was shortened; any answer stands in for ones unknown."""
    if not labelled:
        first: dict[str, Any] = {"answers": (0,) * len(rows)} if isinstance(rows, Questions) else {}
        first |= {"answered": True} if isinstance(rows, Preferences) else {}
        rows = replace(rows, **first) if first else replace(rows, labels=(tuned.labels[0],) * len(rows))
    work = Work(tuned.base, tuned.prompt, 0, tuned.too_long, tuned.cache, tuned.say)
    (found,) = shape_of(tuned.prompt.task).trainable(work, [rows])
    return found  # type: ignore[return-value]


def split_rows(tuned: Tuned, rows: Rows) -> tuple[Rows, Rows | None]:
    """Rows that were tuned on, and the others; all count as tuned on where that is not known."""
    task: Any = tuned.prompt.task
    task.gold(rows)
    if not tuned.training_rows:
        tuned.say(f"all {len(rows)} rows count as rows that it was tuned on: which they were is not known")
        return rows, None
    digests = row_digests(rows)
    own = [at for at, digest in enumerate(digests) if digest in tuned.training_rows]
    others = [at for at, digest in enumerate(digests) if digest not in tuned.training_rows]
    if not own:
        raise InputError(
            "the model was tuned on none of these rows",
            where=rows.source,
            expected=f"the {len(tuned.training_rows)} rows that it was tuned on",
            fix="name the training file",
        )
    missing = len(tuned.training_rows) - len({digests[at] for at in own})
    if missing:
        tuned.say(
            f"{missing} of {len(tuned.training_rows)} rows that it was tuned on are not in {rows.source}"
        )
    return rows.select(own), rows.select(others) if others else None


def _warn_seen(tuned: Tuned, rows: Rows) -> None:
    seen = sum(digest in tuned.training_rows for digest in row_digests(rows))
    if seen:
        tuned.say(f"{seen} of {len(rows)} rows to choose the precision by were tuned on: it will be too high")


def predictive(tuned: Tuned, rows: Rows) -> Predictive:
    """Mean and covariance of the answer logits; see :meth:`Tuned.predictive`."""
    return sureness(tuned, rows)[0]


def moments(tuned: Tuned, rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each answer's probability over the posterior, both (rows, answers)."""
    return sureness(tuned, rows)[1:]


def sureness(tuned: Tuned, rows: Any, answers: Answers | None = None) -> tuple[Predictive, Tensor, Tensor]:
    """The predictive, and mean and standard deviation of each probability, both (rows, answers).

    A closed-form fit's logits pass through soft-capping itself, where the predictive has but its slope.

    Args:
        tuned: The model.
        rows: The rows.
        answers: What :func:`answer` says of them, where it is at hand.

    Raises:
        CapabilityError: For a model without posterior.
    """
    if tuned.laplace is not None:
        assert tuned.module is not None
        spots = uncertain(tuned, tuned.laplace.part)
        found = tuned.laplace.predict(tuned.module, scored(tuned, rows, labelled=False), spots)
        return found, *found.moments()
    if tuned.posterior is None:
        raise CapabilityError(
            "this model has no posterior",
            where=tuned.method.name,
            expected="a closed-form fit, or an adapter that pegbox laplace has seen",
            fix="pegbox laplace ADAPTER DATA",
        )
    answers = answer(tuned, rows) if answers is None else answers
    found = _closed_form(tuned, tuned.posterior, answers.hidden, answers.logits)
    return found, *closed_form_moments(tuned, tuned.posterior, answers.hidden)


def _closed_form(tuned: Tuned, posterior: Posterior, hidden: Tensor, logits: Tensor) -> Predictive:
    """The exact posterior of the correction, through logit scale and soft-capping by their slope."""
    assert tuned.module is not None
    scale = output_scale(tuned.module)
    raw = raw_logits(tuned.base, tuned.module, hidden, tuned.prompt)
    none = torch.zeros(len(raw), len(tuned.labels), dtype=torch.float64)
    _, covariance = posterior.predictive(hidden.double() * scale, none)
    bend = output_tail_slope(tuned.module, raw).double().cpu() / scale
    return Predictive(logits, _centred(bend[:, :, None] * covariance * bend[:, None, :]))


def _centred(covariance: Tensor) -> Tensor:
    less = covariance - covariance.mean(1, keepdim=True)
    return less - less.mean(2, keepdim=True)
