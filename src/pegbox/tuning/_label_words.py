from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pegbox.data import Examples, split, take
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import Base, FeatureCache, class_means, encode, extract, slot_logits, word_logprobs
from pegbox.tasks import Classify, Prompt, TooLong, answer_word, first_words
from pegbox.training import tell
from pegbox.tuning._combinations import Combination, best_combinations

Ranking = Literal["likely", "distinct"]
FOLDS = 5
MOST_ROWS = 2048
WIDTH = 64


@dataclass(frozen=True)
class Candidate:
    """A word that may stand for a label.

    Args:
        word: The word.
        token: Its token at the answer slot.
        score: Mean log-probability over the label's rows (``likely``), or by how much that exceeds the
            mean over all labels (``distinct``).
    """

    word: str
    token: int
    score: float


@dataclass(frozen=True)
class LabelWords:
    """What a search for label words found, and whether it is worth taking.

    Args:
        task: The task with the words to use: the found ones, or those it had.
        found: The best words of the search, one per label.
        given: The words that the task had, or that were derived for it.
        taken: Whether ``task`` uses the found words.
        ranking: How candidates were ranked.
        accuracy: Accuracy of the found words on the rows of the search, which flatters them.
        cross_validated: Accuracy of searches on rows that they did not see; ``None`` where the rows are too
            few to be divided.
        given_accuracy: Accuracy of the given words on the same rows.
        candidates: The words considered for each label, the best first.
        best: The best combinations with their accuracies, the best first.
        rows: Rows that were searched on.
    """

    task: Classify
    found: tuple[str, ...]
    given: tuple[str, ...]
    taken: bool
    ranking: Ranking
    accuracy: float
    cross_validated: float | None
    given_accuracy: float
    candidates: tuple[tuple[Candidate, ...], ...] = field(repr=False)
    best: tuple[tuple[tuple[str, ...], float], ...] = field(repr=False)
    rows: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The words to use, one per label."""
        return self.found if self.taken else self.given

    def notes(self) -> list[str]:
        """What was found and why it is taken or not, in lines for the user."""
        lines = [
            f"label words found on {self.rows} training rows: {self._listed(self.found)} "
            f"(accuracy there {self.accuracy:.3f}; the words it had, {self._listed(self.given)}, "
            f"{self.given_accuracy:.3f})"
        ]
        if self.cross_validated is None:
            return [*lines, "the words it had are kept: the rows are too few to cross-validate the search"]
        measured = f"cross-validated {self.cross_validated:.3f} against {self.given_accuracy:.3f}"
        verdict = "the found words are taken" if self.taken else "the words it had are kept"
        return [*lines, f"{verdict}: {measured}"]

    def _listed(self, words: Sequence[str]) -> str:
        return ", ".join(f"{label}={word}" for label, word in zip(self.task.labels, words, strict=True))


def search_label_words(
    base: Base,
    task: Classify,
    rows: Examples | None = None,
    *,
    candidates: int = 16,
    seed: int = 0,
    too_long: TooLong = "shorten",
    cache: FeatureCache | None = None,
    say: Callable[[str], None] = tell,
) -> LabelWords:
    """Search the vocabulary for words that stand for the labels best, on training rows, with a frozen base.

    After Gao et al. 2021 (LM-BFF, section 4.1): for each label the tokens of the largest mean log-probability
    at the answer slot over the label's rows, of which whole words are kept; then the combinations of one word
    per label by their accuracy on the rows, ties by likelihood. Two rankings compete by cross-validation: as
    they are, and less the mean over all labels. The words that the task had stay unless the search is better
    on rows it did not see: see ``LabelWords.taken``.

    Args:
        base: A base with an output layer.
        task: The task; its template, or the one derived for it, is used as it is, without demonstrations.
        rows: Labelled training rows; by default those that the task was read from. Of more than 2,048 a
            seeded sample is used.
        candidates: Words considered for each label.
        seed: Of the folds and the sample.
        too_long: What to do with texts that do not fit.
        cache: Feature cache.
        say: Receives lines for the user.

    Raises:
        CapabilityError: For a base without an output layer, or too few words in its vocabulary.
        InputError: For rows that cannot be learnt from.
        UsageError: For less than one candidate.
    """
    prompt = _prompt(base, task, candidates)
    for note in prompt.notes:
        say(note)
    rows = _rows(task, rows if rows is not None else task.rows, seed, say)
    encoded = encode(base, prompt, rows, too_long=too_long, cache=cache, say=say)
    hidden = extract(base, prompt, encoded, cache=cache, say=say, need_logits=False).hidden
    given = (
        slot_logits(base, hidden, prompt.tokens)
        if prompt.distinct
        else word_logprobs(base.model, base, prompt, encoded)
    )
    search = _Search(base, prompt, hidden, torch.tensor(prompt.task.gold(rows)), candidates)
    return _decided(search, given, _folds(rows, seed))


def searched(base: Base, task: Any, rows: Any, wanted: str, **options: Any) -> Classify:
    """The task with the words of a search on these rows, told.

    Raises:
        UsageError: When it has none to search, or words are wanted otherwise than ``auto``.
    """
    if wanted != "auto" or not isinstance(task, Classify) or task.label_words is not None:
        raise UsageError(
            "label words cannot be searched here",
            where=f"label_words {wanted!r} for a {type(task).__name__} task",
            expected="auto, and a classification task without label words",
            fix="give a task its words, or leave them to the search",
        )
    if task.readout == "head":
        raise UsageError(
            "a head says no label words, so none can be searched",
            where=f"label_words {wanted!r} with readout head",
            expected="readout words, and a method other than head",
            fix="leave --label-words out, or the head",
        )
    found = search_label_words(base, task, rows, **options)
    for note in found.notes():
        options["say"](note)
    return found.task


@dataclass(eq=False)
class _Search:
    """A search on some rows, from the frozen base's hidden states (rows, width) at their answer slots."""

    base: Base
    prompt: Prompt
    hidden: Tensor
    gold: Tensor
    count: int
    known: dict[int, str | None] = field(default_factory=dict)

    def part(self, chosen: Tensor) -> _Search:
        """The same search on some of the rows."""
        return replace(self, hidden=self.hidden[chosen], gold=self.gold[chosen])

    def means(self) -> Tensor:
        """Mean log-probabilities, (labels, vocabulary) float64."""
        return class_means(self.base, self.hidden, self.gold, len(self.prompt.task.labels))

    def candidates(self, means: Tensor, ranking: Ranking) -> list[list[Candidate]]:
        """The best words for each label."""
        scores = means - means.mean(0) if ranking == "distinct" else means
        spoken = answer_word(self.prompt)

        def word_of(token: int) -> str | None:
            if token not in self.known:
                self.known[token] = spoken(token)
            return self.known[token]

        found = []
        for row in scores:
            order = row.argsort(descending=True, stable=True).tolist()
            words = first_words(order, word_of, self.count)
            found.append([Candidate(word, token, float(row[token])) for token, word in words])
        return found

    def combinations(self, candidates: Sequence[Sequence[Candidate]]) -> list[tuple[Combination, list[int]]]:
        """The best combinations, each with its tokens."""
        tokens = sorted({item.token for items in candidates for item in items})
        column = {token: index for index, token in enumerate(tokens)}
        options = [[column[item.token] for item in items] for items in candidates]
        logits = slot_logits(self.base, self.hidden, tokens)
        found = best_combinations(logits, self.gold, options, width=max(WIDTH, self.count))
        if not found:
            raise CapabilityError(
                f"the vocabulary has no {len(options)} different words for the labels",
                where=self.base.name,
                expected="a vocabulary with whole words",
                fix="give words with --label-words, or search with more candidates",
            )
        return [(item, [tokens[index] for index in item.columns]) for item in found]

    def right(self, tokens: Sequence[int]) -> Tensor:
        """Which rows these tokens answer rightly, (rows,)."""
        return _right(slot_logits(self.base, self.hidden, tokens), self.gold)


def _decided(search: _Search, given: Tensor, folds: Sequence[Tensor] | None) -> LabelWords:
    """Search on all rows by the ranking that cross-validates best, and compare it with the given words."""
    right_given = _right(given, search.gold)
    unseen = _cross_validated(search, folds) if folds else {}
    # Without folds to tell by, the ranking of the paper.
    ranking: Ranking = max(unseen, key=lambda name: float(unseen[name].double().mean()), default="likely")
    taken = bool(unseen) and clearly_better(unseen[ranking], right_given)
    candidates = search.candidates(search.means(), ranking)
    spoken = {item.token: item.word for items in candidates for item in items}
    best = [
        (tuple(spoken[token] for token in tokens), found.correct / len(search.gold))
        for found, tokens in search.combinations(candidates)
    ]
    task = search.prompt.task
    return LabelWords(
        task=replace(task, label_words=best[0][0]) if taken else task,
        found=best[0][0],
        given=task.label_words or (),
        taken=taken,
        ranking=ranking,
        accuracy=best[0][1],
        cross_validated=float(unseen[ranking].double().mean()) if unseen else None,
        given_accuracy=float(right_given.double().mean()),
        candidates=tuple(map(tuple, candidates)),
        best=tuple(best),
        rows=len(search.gold),
    )


def _cross_validated(search: _Search, folds: Sequence[Tensor]) -> dict[Ranking, Tensor]:
    """For each ranking which rows are answered rightly by a search on the other folds, (rows,)."""
    right = {ranking: torch.zeros(len(search.gold), dtype=torch.bool) for ranking in get_args(Ranking)}
    for held in folds:
        rest = torch.ones(len(search.gold), dtype=torch.bool)
        rest[held] = False
        learning, asking = search.part(rest), search.part(held)
        means = learning.means()
        for ranking, found in right.items():
            _, tokens = learning.combinations(learning.candidates(means, ranking))[0]
            found[held] = asking.right(tokens)
    return right


def clearly_better(right: Tensor, given: Tensor) -> bool:
    """Whether one set of answers beats another by more than one standard error of the paired difference.

    The one-standard-error rule (Breiman et al. 1984): the simpler choice stays unless the other one is
    clearly better.

    Args:
        right: (rows,) whether the new answers are right.
        given: (rows,) whether the simpler ones are.
    """
    difference = right.double() - given.double()
    if len(difference) < 2:
        return False
    error = float(difference.std()) / math.sqrt(len(difference))
    # One more row alone is one standard error exactly: rounding must not make it more.
    return float(difference.mean()) > error * (1 + 1e-9)


def _right(logits: Tensor, gold: Tensor) -> Tensor:
    own = logits.gather(1, gold[:, None])
    return (logits.scatter(1, gold[:, None], -torch.inf) < own).all(1)


def _prompt(base: Base, task: Classify, candidates: int) -> Prompt:
    if base.kind == "encoder":
        raise CapabilityError(
            "label words cannot be searched on an encoder without an output layer",
            where=base.name,
            expected="a model that says words",
            fix="leave --label-words out: the plain texts are read",
        )
    if type(candidates) is not int or candidates < 1:
        raise UsageError(
            "the number of candidates is no number to search among",
            where=f"candidates {candidates!r}",
            expected="a whole number of at least 1",
        )
    return base.prepare(task.with_rows(None)).with_demonstrations(())


def _rows(task: Classify, rows: Examples | None, seed: int, say: Callable[[str], None]) -> Examples:
    if rows is None or not len(rows):
        raise InputError("there are no rows to search on", expected="labelled rows", fix="pass rows=")
    task.gold(rows)
    task.check_all_present(rows)
    if len(rows) <= MOST_ROWS:
        return rows
    say(f"label words are searched on {MOST_ROWS:,} of {len(rows):,} training rows (seed {seed})")
    return take(rows, MOST_ROWS, seed)


def _folds(rows: Examples, seed: int) -> list[Tensor] | None:
    """Positions of the rows of each fold, by class and with equal texts in one; ``None`` with too few."""
    numbered = replace(rows, numbers=tuple(range(len(rows))))
    for count in range(FOLDS, 1, -1):
        try:
            parts = split(numbered, fractions={str(fold): 1 / count for fold in range(count)}, seed=seed)
        except InputError:
            continue
        return [torch.tensor(part.numbers) for part in parts.values()]
    return None
