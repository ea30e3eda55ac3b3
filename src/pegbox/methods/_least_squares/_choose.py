from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.methods._least_squares._check import as_problem, check_penalty, check_smoothing
from pegbox.methods._least_squares._spectrum import Spectrum
from pegbox.methods._least_squares._targets import centred, centred_one_hot, margin

PENALTY_POINTS = 30
# Smoothings as shares of their upper limit 1 - 1/labels.
SMOOTHING_SHARES = (0.001, 0.004, 0.015, 0.05, 0.12, 0.25, 0.45, 0.7)
_EXTENSIONS = 2
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Choice:
    """Hyperparameters chosen by leave-one-out on the training rows.

    Attributes:
        penalty: The penalty chosen.
        smoothing: The smoothing chosen; 0 for the log loss.
        loss: Leave-one-out log-loss of the softmax at the choice, mean over rows, in nats.
        accuracy: Leave-one-out accuracy at the choice; a tie between labels counts as wrong.
        table: (cells, 4) all values tried: penalty, smoothing, loss, accuracy.
        criterion: How the loss was computed.
        edges: Which of "penalty" and "smoothing" are still at an end of their grid, and which end.
    """

    penalty: float
    smoothing: float
    loss: float
    accuracy: float
    table: Tensor
    criterion: str = "exact leave-one-out"
    edges: tuple[str, ...] = field(default=())


def choose_penalty(
    Z: Tensor,
    L: Tensor,
    gold: Tensor,
    *,
    penalties: Sequence[float] | None = None,
    smoothings: Sequence[float] | None = None,
    intercept: bool = True,
    spectrum: Spectrum | None = None,
) -> Choice:
    """Choose penalty and smoothing of ``solve`` by the exact leave-one-out log-loss of the softmax.

    One decomposition of the features serves all cells; no refit is made. The left-out prediction is linear in
    the targets, and these in ``margin(smoothing)``, so a penalty costs one product with 2 * labels columns.
    A default grid is extended (twice at the most) while its best cell lies on an edge; a grid that was
    given is kept.

    Args:
        Z: (rows, width) features.
        L: (rows, labels) logits of the base.
        gold: (rows,) label indices.
        penalties: Positive penalties; default a log grid relative to the largest squared singular value.
        smoothings: Smoothings in (0, 1 - 1/labels); default eight shares of that limit.
        intercept: Whether an unpenalised intercept is fitted.
        spectrum: The features' decomposition where it is already known.

    Raises:
        InputError: Features or labels that cannot be used.
        UsageError: A penalty or smoothing out of range.
    """
    Z, L, gold = as_problem(Z, L, gold)
    spectrum = spectrum or Spectrum.of(Z, intercept)
    if spectrum.intercept != intercept:
        raise UsageError(f"the spectrum was computed with intercept={spectrum.intercept}")
    spectrum.check_rows(L)
    labels = L.shape[1]
    limit = 1.0 - 1.0 / labels
    rows = LeftOut(spectrum, L, gold)
    lams = [
        check_penalty(p, positive=True) for p in _given(penalties, "penalties", default_penalties(spectrum))
    ]
    epss = [
        check_smoothing(s, labels)
        for s in _given(smoothings, "smoothings", [share * limit for share in SMOOTHING_SHARES])
    ]
    cells = rows.cells(lams, epss)
    for _ in range(_EXTENSIONS):
        best = best_cell(cells)
        more_lams = further_penalties(lams, float(best[0])) if penalties is None else []
        more_epss = _further_smoothings(epss, float(best[1]), limit) if smoothings is None else []
        if not more_lams and not more_epss:
            break
        fresh = [rows.cells(more_lams, epss + more_epss), rows.cells(lams, more_epss)]
        lams, epss = sorted(lams + more_lams), sorted(epss + more_epss)
        cells = torch.cat([cells, *fresh])
        if float(best[2] - best_cell(cells)[2]) < 1e-6:
            break
    return choice_of(cells, "exact leave-one-out")


class LeftOut:
    """Exact leave-one-out predictions of all rows for any penalty and smoothing.

    Args:
        spectrum: Decomposition of the features.
        logits: (rows, labels) logits of the base, checked.
        gold: (rows,) label indices, checked.
    """

    def __init__(self, spectrum: Spectrum, logits: Tensor, gold: Tensor) -> None:
        self.spectrum, self.gold, self.labels = spectrum, gold, logits.shape[1]
        self.one_hot = centred_one_hot(gold, self.labels)
        self.targets, _ = spectrum.centre(torch.cat([self.one_hot, centred(logits)], dim=1))
        self.coefficients = spectrum.left.T @ self.targets

    def cells(self, penalties: Sequence[float], smoothings: Sequence[float]) -> Tensor:
        """Return (penalties * smoothings, 4): penalty, smoothing, left-out log-loss and accuracy."""
        if not penalties or not smoothings:
            return torch.empty(0, 4, dtype=torch.float64)
        step = max(1, _BLOCK // (len(self.gold) * self.labels * max(2, len(smoothings))))
        blocks = [
            self._block(penalties[start : start + step], smoothings)
            for start in range(0, len(penalties), step)
        ]
        return torch.cat(blocks)

    def _block(self, penalties: Sequence[float], smoothings: Sequence[float]) -> Tensor:
        lam = torch.tensor(penalties, dtype=torch.float64)
        margins = torch.tensor([margin(s, self.labels) for s in smoothings], dtype=torch.float64)
        answers, base = self._errors(lam)
        margins = margins.to(answers)[:, None, None]
        # Differences to the gold label, (labels, smoothings, penalties, rows): labels first, to reduce fast.
        drop = self.one_hot.T[:, None, None, :] * margins - (margins * answers[:, None] - base[:, None])
        own = self.gold.expand(1, *drop.shape[1:])
        drop = drop - drop.gather(0, own)
        loss = drop.logsumexp(dim=0).mean(dim=-1)
        right = drop.scatter_(0, own, -1.0).amax(dim=0).lt(0.0).to(loss.dtype).mean(dim=-1)
        grid = torch.cartesian_prod(torch.tensor(smoothings, dtype=torch.float64), lam)
        return torch.cat([grid.flip(1), loss.reshape(-1, 1).cpu(), right.reshape(-1, 1).cpu()], dim=1)

    def _errors(self, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return left-out errors of the one-hot part and of the base part, each (labels, penalties, rows)."""
        errors = self.spectrum.errors(self.targets, self.coefficients, penalties)
        errors = errors / self.spectrum.slack(penalties).T[None]
        return errors[: self.labels], errors[self.labels :]


def default_penalties(spectrum: Spectrum, points: int = PENALTY_POINTS) -> list[float]:
    """Return a log grid from 1e-7 to 10 times the largest squared singular value.

    Raises:
        InputError: All rows have the same features.
    """
    if spectrum.rank == 0:
        raise InputError(
            "all rows have the same features",
            expected="features that differ between rows",
            fix="check the texts",
        )
    top = float(spectrum.values[0]) ** 2
    return (top * torch.logspace(-7, 1, points, dtype=torch.float64)).tolist()


def further_penalties(penalties: Sequence[float], best: float) -> list[float]:
    """Return two more decades beyond the end of the grid at which ``best`` lies, or nothing."""
    low, high = min(penalties), max(penalties)
    if best == low:
        return [low * 10 ** (-step / 3) for step in range(6, 0, -1)]
    if best == high:
        return [high * 10 ** (step / 3) for step in range(1, 7)]
    return []


def best_cell(cells: Tensor) -> Tensor:
    """Return the row of least loss; among equals (to 1e-12) the one of the largest penalty."""
    near = cells[cells[:, 2] <= cells[:, 2].min() * (1 + 1e-12)]
    return near[near[:, 0].argmax()]


def choice_of(cells: Tensor, criterion: str) -> Choice:
    """Return the best of ``cells`` (cells, 4) with the whole table."""
    best = best_cell(cells)
    edges = []
    for column, name in enumerate(("penalty", "smoothing")):
        low, high = cells[:, column].min(), cells[:, column].max()
        if low < high and best[column] in (low, high):
            edges.append(f"{name} {'lowest' if best[column] == low else 'highest'}")
    penalty, smoothing, loss, accuracy = best.tolist()
    order = cells[cells[:, 1].argsort(stable=True)]
    order = order[order[:, 0].argsort(stable=True)]
    return Choice(penalty, smoothing, loss, accuracy, order, criterion, tuple(edges))


def _given(values: Sequence[float] | None, name: str, default: list[float]) -> list[float]:
    if values is None:
        return default
    if not len(values):
        raise UsageError(f"no {name} to choose from", expected="at least one number")
    return sorted(values)


def _further_smoothings(smoothings: Sequence[float], best: float, limit: float) -> list[float]:
    low, high = min(smoothings), max(smoothings)
    if best == low and low > 1e-9 * limit:
        return [low / 30, low / 10, low / 3]
    if best == high:
        return [limit - (limit - high) * share for share in (0.6, 0.3, 0.1)]
    return []
