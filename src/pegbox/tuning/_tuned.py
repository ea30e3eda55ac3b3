from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pegbox.data import Examples, examples, find_columns, from_texts, read
from pegbox.errors import CapabilityError
from pegbox.evaluation import Scores, score
from pegbox.methods import Method
from pegbox.models import (
    Base,
    FeatureCache,
    Features,
    answer_logits,
    answer_tokens,
    encode,
    extract,
    output_layer,
    output_scale,
    output_tail,
    rows_of,
    word_logprobs,
)
from pegbox.tasks import Prompt, TooLong
from pegbox.training import tell

if TYPE_CHECKING:
    from pegbox.methods import Posterior

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The answer for one row.

    Args:
        label: The most probable label.
        probability: Its probability.
        probabilities: All labels' probabilities.
        deviation: Standard deviation of ``probability`` under the posterior, where there is one.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    deviation: float | None = None


@dataclass(frozen=True)
class Cost:
    """What tuning took.

    Args:
        seconds: Wall time from the encoded rows to the tuned model.
        parameters: Tuned parameters.
        rows: Training rows.
    """

    seconds: float
    parameters: int
    rows: int


@dataclass(frozen=True, eq=False)
class Tuned:
    """A base with what was turned on it, ready to predict, evaluate and save.

    Args:
        base: The base, unchanged.
        prompt: The task, made ready for the base.
        method: The method that tuned it.
        module: The base with the adapter; ``None`` when the base itself answers.
        posterior: Posterior of a closed-form solution.
        details: What the method chose and measured.
        cost: What tuning took.
        training_rows: Digests of the rows it was tuned on, to tell seen from unseen rows.
        cache: Feature cache.
        too_long: What to do with texts that do not fit.
        say: Receives lines for the user.
    """

    base: Base
    prompt: Prompt
    method: Method
    module: nn.Module | None
    posterior: Posterior | None
    details: Mapping[str, Any]
    cost: Cost
    training_rows: frozenset[str] = frozenset()
    features: Tensor | None = None
    cache: FeatureCache | None = None
    too_long: TooLong = "shorten"
    say: Callable[[str], None] = tell

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of all probability columns."""
        return self.prompt.task.labels

    def logits(self, rows: Examples) -> Tensor:
        """Answer logits of rows, (rows, labels), or log-probabilities of whole label words."""
        return self._answers(rows).logits

    def probabilities(self, rows: Examples) -> Array:
        """Probabilities of the labels, (rows, labels)."""
        return _softmax(self.logits(rows))

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]] | Examples) -> list[Prediction]:
        """Answer for texts, pairs of texts, or rows that were read from a file.

        Returns:
            One prediction per text, in order.
        """
        rows = texts if isinstance(texts, Examples) else from_texts(texts, self.prompt.task.fields)
        if not len(rows):
            return []
        answers = self._answers(rows)
        probabilities = _softmax(answers.logits)
        deviations = self._deviations(answers, rows, probabilities)
        return [
            Prediction(
                label=self.labels[int(row.argmax())],
                probability=float(row.max()),
                probabilities=dict(zip(self.labels, map(float, row), strict=True)),
                deviation=deviation,
            )
            for row, deviation in zip(probabilities, deviations, strict=True)
        ]

    def evaluate(
        self, rows: str | Path | Examples, *, resamples: int = 1000, seed: int = 0, on_bad: str = "error"
    ) -> Scores:
        """Score labelled rows, with flips against the base where the base can answer.

        Args:
            rows: File, hub id or rows.
            resamples: Bootstrap resamples of the intervals.
            seed: Their seed.
            on_bad: ``"error"`` or ``"drop"`` for rows without text or label.
        """
        found = rows if isinstance(rows, Examples) else self.read(rows, on_bad=on_bad)
        gold = np.array(self.prompt.task.gold(found))
        started = time.perf_counter()
        answers = self._answers(found)
        seconds = time.perf_counter() - started
        base = self._base_probabilities(found)
        seen = np.array([digest in self.training_rows for digest in row_digests(found)])
        scores = score(
            _softmax(answers.logits),
            gold,
            self.labels,
            base=base,
            in_training=seen if base is not None else None,
            distance=self._distance(answers) if base is not None else None,
            resamples=resamples,
            seed=seed,
        )
        return replace(scores, seconds=seconds)

    def read(self, source: str | Path, *, labelled: bool = True, on_bad: str = "error") -> Examples:
        """Read rows of a file or hub id by the task's own columns."""
        table = read(source)
        label = self.prompt.task.label_column if labelled else None
        columns = find_columns(table, texts=self.prompt.task.fields, label=label, need_label=labelled)
        rows = examples(table, columns, need_labels=labelled, on_bad=on_bad, min_classes=1)  # type: ignore[arg-type]
        for note in (*table.notes, *rows.notes()):
            self.say(note)
        return rows

    def save(self, folder: str | Path, *, scores: Scores | None = None, overwrite: bool = False) -> Path:
        """Write the adapter, task, scores, model card and posterior into one folder, whole or not at all.

        Args:
            folder: Where; its parents are made.
            scores: Scores to keep beside the adapter and to state in the model card.
            overwrite: Whether an existing folder may be replaced.
        """
        from pegbox.tuning._saving import save

        return save(self, Path(folder), scores=scores, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, *, model: str | Path | Base | None = None, **options: Any) -> Tuned:
        """Load what :meth:`save` wrote.

        Args:
            folder: The saved folder.
            model: The base, or where it lies now; by default the name it was tuned by.
            options: Passed on to :func:`pegbox.load`, and ``cache``, ``too_long``, ``say``.
        """
        from pegbox.tuning._saving import load

        return load(Path(folder), model=model, **options)

    def _answers(self, rows: Examples) -> Features:
        encoded = encode(
            self.base, self.prompt, rows, too_long=self.too_long, cache=self.cache, say=self.say
        )
        for note in encoded.notes():
            self.say(note)
        if self.prompt.answers and not self.prompt.distinct:
            if self.base.kind != "causal":
                raise CapabilityError("whole label words are scored on causal models only")
            words = word_logprobs(self.base.model, self.base, self.prompt, encoded)
            return Features(torch.empty(len(encoded), 0), words)
        if self.module is None or self.method.capability.output_only:
            features = extract(self.base, self.prompt, encoded, cache=self.cache, say=self.say)
            return features if self.module is None else corrected(self.base, self.module, features, self.prompt)
        return answer_logits(self.module, self.base, self.prompt, encoded)

    def _base_probabilities(self, rows: Examples) -> Array | None:
        """The zero-shot answer of the base; an encoder without output layer has none."""
        if self.base.kind == "encoder":
            return None
        return _softmax(base_alone(self)._answers(rows).logits)

    def _deviations(self, answers: Features, rows: Examples, probabilities: Array) -> list[float | None]:
        if self.posterior is None:
            return [None] * len(rows)
        scale = output_scale(self.base.module(len(self.labels)))
        nothing = torch.zeros(len(rows), len(self.labels), dtype=torch.float64)
        _, covariance = self.posterior.predictive(answers.hidden.double() * scale, nothing)
        # First-order propagation through the softmax: dp_k = p_k (e_k - p)' df.
        chosen = torch.from_numpy(probabilities.argmax(1))
        p = torch.from_numpy(probabilities)
        slope = -p * p.gather(1, chosen[:, None])
        slope.scatter_add_(1, chosen[:, None], p.gather(1, chosen[:, None]))
        variance = torch.einsum("nk,nkl,nl->n", slope, covariance, slope).clamp(min=0)
        return [float(value) for value in variance.sqrt()]

    def _distance(self, answers: Features) -> Array | None:
        """Euclidean distance of each row's base features to the nearest training row's."""
        if self.features is None or answers.hidden.shape[1] != self.features.shape[1]:
            return None
        if self.module is not None and not self.method.capability.output_only:
            return None
        return torch.cdist(answers.hidden.double(), self.features.double()).min(1).values.numpy()


def base_alone(tuned: Tuned) -> Tuned:
    """The same task answered by the base without adapter and demonstrations."""
    prompt = tuned.prompt.with_demonstrations(())
    return replace(tuned, prompt=prompt, module=None, posterior=None, say=lambda line: None)


@torch.inference_mode()
def corrected(base: Base, module: nn.Module, features: Features, prompt: Prompt) -> Features:
    """Answers of an adapter that changes only the output layer, from the base's features."""
    tokens = torch.tensor(answer_tokens(prompt), device=base.device)
    _, layer = output_layer(module)
    raw = rows_of(layer, features.hidden.to(base.device, base.dtype), tokens)
    return Features(features.hidden, output_tail(module, raw).float().cpu())


def row_digests(rows: Examples) -> list[str]:
    """A short digest of each row's texts, case and spacing aside."""
    return [
        sha256("\x1f".join(" ".join(text.lower().split()) for text in texts).encode()).hexdigest()[:16]
        for texts in zip(*rows.fields.values(), strict=True)
    ]


def _softmax(logits: Tensor) -> Array:
    return logits.double().softmax(1).numpy()
