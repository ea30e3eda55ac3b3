from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pegbox.data import Examples, GeneralText, Rows, read
from pegbox.errors import InputError, UsageError, several
from pegbox.evaluation import Scores
from pegbox.methods import Method
from pegbox.models import Base, FeatureCache
from pegbox.tasks import Classify, Prompt, TooLong
from pegbox.training import hush, tell
from pegbox.tuning._answers import Array, softmax
from pegbox.tuning._given import check_no_table, rows_given
from pegbox.tuning._provenance import Provenance
from pegbox.tuning._shapes import shape_of

if TYPE_CHECKING:
    from pegbox.evaluation import Forgetting
    from pegbox.methods import Posterior, Problem, Solved
    from pegbox.models import Dtype
    from pegbox.uncertainty import Laplace, Predictive


@dataclass(frozen=True)
class Cost:
    """What tuning took.

    Args:
        seconds: Wall time from the encoded rows to the tuned model, resumed parts included.
        parameters: Tuned parameters.
        rows: Rows that were learnt from; those held out for early stopping do not count.
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
        laplace: Posterior of an adapter, as :meth:`with_posterior` fits it.
        averaged: Whether probabilities are averaged over the posterior.
        details: What the method chose and measured.
        cost: What tuning took.
        training_rows: Digests of the rows it was tuned on, to tell seen from unseen rows.
        validation_rows: Digests of the rows that chose where training stopped.
        features: Hidden states of those rows, (rows, width), as long as they are in memory.
        cache: Feature cache.
        too_long: What to do with texts that do not fit.
        say: Receives lines for the user.
        grow: How the method takes further rows, as long as its equations are in memory.
        weights: Whether ``module`` has weights of its own (full fine-tuning, a merged model) instead of an
            adapter on those of the base.
        provenance: The rows that it was tuned on, where that is known.
        origin: What ``pegbox.json`` says of the untuned base when ``base`` is the tuned weights themselves,
            since the folder was loaded without it; there are then no flips to tell.
    """

    base: Base
    prompt: Prompt
    method: Method
    module: nn.Module | None = field(repr=False)
    posterior: Posterior | None = field(repr=False)
    details: Mapping[str, Any] = field(repr=False)
    cost: Cost
    training_rows: frozenset[str] = field(default=frozenset(), repr=False)
    validation_rows: frozenset[str] = field(default=frozenset(), repr=False)
    features: Tensor | None = field(default=None, repr=False)
    cache: FeatureCache | None = field(default=None, repr=False)
    too_long: TooLong = "shorten"
    say: Callable[[str], None] = field(default=tell, repr=False)
    grow: Callable[[Problem], Solved] | None = field(default=None, repr=False)
    weights: bool = False
    provenance: Provenance | None = field(default=None, repr=False)
    origin: Mapping[str, Any] | None = field(default=None, repr=False)
    laplace: Laplace | None = field(default=None, repr=False)
    averaged: bool = False

    @property
    def network(self) -> nn.Module:
        """The model that answers: the tuned one, or the base where nothing was turned."""
        return self.module if self.module is not None else self.base.model

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of all probability columns."""
        return self.prompt.task.labels

    def logits(self, rows: Rows) -> Tensor:
        """Answer logits of rows, (rows, labels), or log-probabilities of whole label words."""
        return shape_of(self.prompt.task).logits(self, rows)

    def probabilities(self, rows: Rows) -> Array:
        """Probabilities of the labels, (rows, labels), averaged over the posterior where that is in use."""
        if self.averaged:
            from pegbox.tuning._laplace import moments

            return moments(self, rows)[0].numpy()
        return softmax(self.logits(rows))

    def predictive(self, rows: Rows) -> Predictive:
        """How sure the answers are: mean and covariance of the logits under the posterior.

        By the model linearised at its weights; a closed-form fit's posterior is exact. The result gives the
        probabilities, each logit's standard deviation and draws.

        Args:
            rows: The rows, with or without labels.

        Raises:
            CapabilityError: For a model without posterior.
        """
        from pegbox.tuning._laplace import predictive

        return predictive(self, rows)

    def with_posterior(self, rows: str | Path | Rows | None = None, **options: Any) -> Tuned:
        """The same model with a Laplace posterior over its adapter; see :func:`pegbox.tuning.laplace`.

        Args:
            rows: The rows that it was tuned on: file, hub id or rows; not needed for a closed-form fit.
            options: As for :func:`pegbox.tuning.laplace`.
        """
        from pegbox.tuning._laplace import laplace

        return laplace(self, rows, **options)

    def predict(self, texts: Sequence[Any] | Rows) -> list[Any]:
        """Answer for texts, pairs of texts, or rows that were read from a file.

        Args:
            texts: Texts or pairs; for multiple choice (question, [option, ...]); for tagging lists of words,
                or texts that are divided at their spaces; for generation prompts, or lists of messages that
                end with the user's; for rewards (prompt, answer), or (prompt, first, second) to compare two;
                or rows.

        Returns:
            One :class:`pegbox.tuning.Prediction`, ``Choice``, ``Tagged``, ``Written``, ``Rewarded`` or
            ``Preferred`` per row, in order.

        Raises:
            UsageError: For one text instead of several.
        """
        if isinstance(texts, str):
            raise UsageError("predict takes several texts", expected="a list", fix="write predict([text])")
        check_no_table(texts, "predict")
        return shape_of(self.prompt.task).predict(self, texts)

    def evaluate(
        self,
        rows: str | Path | Rows,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        resamples: int = 1000,
        seed: int = 0,
        on_bad: str = "error",
    ) -> Any:
        """Score labelled rows, with flips against the base where the base can answer.

        Flipped rows are named by their row numbers in the source. Rows that were tuned on, or that chose
        where training stopped, flatter the scores: how many there are is told.

        Args:
            rows: File, hub id or rows.
            texts: As for :meth:`read`.
            label: As for :meth:`read`.
            resamples: Bootstrap resamples of the intervals.
            seed: Their seed.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used; for tagging also ``"repair"``.

        Returns:
            :class:`pegbox.evaluation.Scores`, ``TagScores`` for tagging, ``GenerationScores`` for generation,
            ``RewardScores`` for rewards.

        Raises:
            InputError: For rows that cannot be scored.
        """
        if isinstance(rows, str | Path):
            found: Rows = self.read(rows, texts=texts, label=label, on_bad=on_bad)
        else:
            found = rows_given(rows, "rows")
        if not len(found):
            raise InputError("there are no rows to evaluate on", where=found.source, expected="labelled rows")
        return shape_of(self.prompt.task).evaluate(self, found, resamples=resamples, seed=seed)

    def forgetting(
        self,
        text: GeneralText | str | Path | None = "auto",
        also: Sequence[Any] = (),
        **options: Any,
    ) -> Forgetting:
        """Measure what tuning broke elsewhere: bits per byte of general text and accuracy on other tasks.

        Args:
            text: General text, or where it lies; ``auto`` for what the embedded world writes beside the task
                (etude alone), ``None`` for none.
            also: Other labelled tasks: files, or tasks with rows.
            options: As for :func:`pegbox.tuning.forgetting`.

        Raises:
            CapabilityError: For a base without a language loss (encoders, encoder-decoders).
            UsageError: When there is nothing to measure on.
        """
        from pegbox.tuning._forgetting import forgetting
        from pegbox.tuning._general import general_text

        if isinstance(text, str | Path):
            text = general_text(text, base=self.base, task=self.prompt.task, say=self.say)
        return forgetting(self, text, also, **options)

    def read(
        self,
        source: str | Path,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Any:
        """Read rows of a file or hub id by the task's own columns, or by others that stand for them.

        Args:
            source: File or hub id.
            texts: Columns of the source that stand for the task's text columns, in the same order.
            label: Column of the source that stands for the task's label column.
            labelled: Whether each row must have a label.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used; for tagging also ``"repair"``.

        Returns:
            The rows, with the task's names for their text columns.

        Raises:
            InputError: For a column that is not there, and for rows that cannot be used.
            UsageError: For more or fewer text columns than the task has.
        """
        table = read(source)
        task = self.prompt.task
        options: dict[str, Any] = {
            "texts": several(texts, "texts"),
            "label": label,
            "labelled": labelled,
            "on_bad": on_bad,
        }
        rows = shape_of(task).rows(task, table, **options)
        for note in rows.notes():
            self.say(note)
        return rows

    def add_rows(self, rows: Examples) -> Tuned:
        """Take further labelled rows into a closed-form fit by the squared loss, without solving it anew.

        The result has the same penalty and smoothing and equals a fit to all rows with these, but for its
        posterior, which it lacks. This model stays as it is.

        Args:
            rows: Labelled rows with the task's columns.

        Raises:
            CapabilityError: For other methods, and for a model that was loaded or streamed, since the
                equations are then not in memory.
        """
        from pegbox.tuning._growth import grown

        return grown(self, rows)

    def merge(self, *, dtype: Dtype = "auto") -> Tuned:
        """The same answers by weights of its own, the adapter folded in; saved as a plain model folder.

        This model and its base stay as they are; the copy of all weights takes as much memory as the base
        without quantisation. See :func:`pegbox.tuning.merge` to write it at once and measure its cost.

        Args:
            dtype: Number format of the weights; ``auto`` is that of the base.

        Raises:
            CapabilityError: When the method, or this base, cannot be merged.
        """
        from pegbox.tuning._merge import folded

        return folded(self, dtype=dtype)

    def save(self, folder: str | Path, *, scores: Scores | None = None, overwrite: bool = False) -> Path:
        """Write the adapter, task, scores, model card and posterior into one folder, whole or not at all.

        Args:
            folder: Where; its parents are made.
            scores: Scores to keep beside the adapter and to state in the model card.
            overwrite: Whether an existing folder that Pegbox wrote may be replaced.
        """
        from pegbox.tuning._saving import save

        return save(self, Path(folder), scores=scores, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, *, model: str | Path | Base | None = None, **options: Any) -> Tuned:
        """Load what :meth:`save` wrote.

        Args:
            folder: The saved folder.
            model: The base, or where it lies now; by default the name it was tuned by.
            options: Passed on to :func:`pegbox.load`, and ``cache``, ``too_long``, ``say``;
                ``posterior=False`` leaves a Laplace posterior in the folder unread.
        """
        from pegbox.tuning._saving import load

        return load(Path(folder), model=model, **options)

    @classmethod
    def from_adapter(
        cls, folder: str | Path, *, task: Classify, base: str | Path | Base | None = None, **options: Any
    ) -> Tuned:
        """Take a LoRA adapter that was made elsewhere, to predict with it, evaluate and save it.

        Args:
            folder: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``, or hub id.
            task: What to ask, and in which words; of a sequence classifier, its labels in the order of the
                head's outputs.
            base: The base, or where it lies; by default the one that the adapter names.
            options: As for :meth:`load`.

        Raises:
            CapabilityError: For an adapter of another kind than LoRA.
            InputError: When the adapter is damaged or does not fit the base.
        """
        from pegbox.tuning._foreign import adopt

        return adopt(folder, task=task, base=base, **options)


# What a copy is given that answers otherwise than its posterior was fitted to.
NO_POSTERIOR: Mapping[str, Any] = {"posterior": None, "laplace": None, "averaged": False}


def base_alone(tuned: Tuned) -> Tuned:
    """The same task answered by the base without adapter, soft tokens and demonstrations."""
    prompt = tuned.prompt.without_soft().with_demonstrations(())
    return replace(tuned, prompt=prompt, module=None, grow=None, say=hush, **NO_POSTERIOR)
