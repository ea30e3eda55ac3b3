"""BLEU, NIST, METEOR, ROUGE-L and CIDEr-D against the libraries, by hand, and where one is not there."""

import math
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pegbox.evaluation import GenerationScores, score_texts
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._nlg import _bleu, _cider, _meteor, _nist, _rouge
from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts

PREDICTIONS = [
    "a man rides a brown horse",
    "two dogs play in the snow",
    "a cat",
    "the red bus stops near the old church",
]
REFERENCES = [
    ["a man is riding a horse", "a person rides a brown horse on a field"],
    ["two dogs are playing in the snow"],
    ["a cat sits on a mat", "a black cat on a mat", "the cat sleeps"],
    ["a red bus stops at the church", "the bus is near the old church"],
]
# Of each row by CiderScorer of pycocoevalcap 1.2.
CIDER = [2.9363199819997954, 3.7074151188001734, 1.6538548327827762, 3.7759890961276623]
# Both sides sum the same float64 in another order.
CLOSE = 1e-9


def random_texts(seed: int, rows: int = 40) -> Texts:
    """Sentences with case and punctuation, one to four references, predictions much like one."""
    rand = random.Random(seed)
    words = re.findall(
        r"\S+", "The the cat cat's dog, ran; runs over 3.5 (red) blue-green Café trees . and !"
    )

    def sentence() -> list[str]:
        return rand.choices(words, k=rand.randint(1, 14))

    references, predictions = [], []
    for _ in range(rows):
        row = [sentence() for _ in range(rand.randint(1, 4))]
        own = [word if rand.random() < 0.8 else rand.choice(words) for word in rand.choice(row)]
        references.append(tuple(" ".join(one) for one in row))
        predictions.append(" ".join(own) if rand.random() < 0.95 else "")
    return Texts(tuple(predictions), tuple(references))


def by_hand() -> Texts:
    return Texts(tuple(PREDICTIONS), tuple(tuple(row) for row in REFERENCES))


def tokens(text: str) -> list[str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()(text).lower().split()


def sacre(texts: Texts) -> float:
    from sacrebleu import corpus_bleu

    most = max(len(row) for row in texts.references)
    streams = [
        [row[place] if place < len(row) else None for row in texts.references] for place in range(most)
    ]
    return corpus_bleu(list(texts.predictions), streams).score


def of_nltk(texts: Texts) -> float:
    from nltk.translate.nist_score import corpus_nist

    return corpus_nist(
        [[tokens(ref) for ref in row] for row in texts.references],
        [tokens(own) for own in texts.predictions],
        n=5,
    )


def of_google(texts: Texts) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(texts.predictions, texts.references, strict=True)
    return float(
        np.mean([max(scorer.score(ref, own)["rougeL"].fmeasure for ref in row) for own, row in pairs])
    )


def part(texts: Texts, rows: list[int]) -> Texts:
    return Texts(tuple(texts.predictions[row] for row in rows), tuple(texts.references[row] for row in rows))


def value(found: Measured, name: str) -> float:
    return found.measures[name].value


@pytest.mark.parametrize("texts", [by_hand(), random_texts(0), random_texts(1)], ids=["hand", "one", "two"])
def test_values_are_the_libraries_own(texts: Texts) -> None:
    assert value(_bleu.bleu(texts), "bleu") == pytest.approx(sacre(texts), abs=CLOSE)
    assert value(_nist.nist(texts), "nist") == pytest.approx(of_nltk(texts), abs=CLOSE)
    assert value(_rouge.rouge_l(texts), "rouge_l") == pytest.approx(of_google(texts), abs=CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_the_statistic_on_all_rows_is_the_value(seed: int) -> None:
    texts = random_texts(seed)
    ones = np.ones((1, len(texts.predictions)))
    for metric in (_bleu.bleu, _nist.nist, _rouge.rouge_l, _cider.cider):
        for measure in metric(texts).measures.values():
            assert measure.statistic(ones)[0] == pytest.approx(measure.value, abs=CLOSE)


def test_bleu_of_resampled_rows_is_sacrebleus_on_those_rows() -> None:
    # Few short rows, so that orders without a match, and without an n-gram at all, are drawn too.
    texts = random_texts(5, rows=4)
    measure = _bleu.bleu(texts).measures["bleu"]
    drawn: list[np.ndarray] = []

    def keep(weights: np.ndarray) -> np.ndarray:
        drawn.append(weights)
        return measure.statistic(weights)

    samples = bootstrap(keep, 4, resamples=60, seed=0)
    for weights, found in zip(np.concatenate(drawn), samples, strict=True):
        rows = np.repeat(np.arange(4), weights.astype(int)).tolist()
        assert found == pytest.approx(sacre(part(texts, rows)), abs=CLOSE)


def test_bleu_where_nothing_matches_or_texts_are_short() -> None:
    for predictions, references in (
        (["x y", "z"], [["a b"], ["c"]]),
        (["", ""], [["a"], ["b"]]),
        (["a b"], [["a b"]]),
        (["a b c d e"], [["a b c d e", ""]]),
    ):
        texts = Texts(tuple(predictions), tuple(tuple(row) for row in references))
        measure = _bleu.bleu(texts).measures["bleu"]
        assert measure.value == pytest.approx(sacre(texts), abs=CLOSE)
        assert measure.statistic(np.ones((1, len(predictions))))[0] == pytest.approx(measure.value, abs=CLOSE)


def test_nist_by_hand() -> None:
    # One row, equal to its reference of six different words: each word tells log2 6 bits, and each longer
    # n-gram log2(1 / 1) = 0.
    text = "one two three four five six"
    assert value(_nist.nist(Texts((text,), ((text,),))), "nist") == pytest.approx(math.log2(6))
    with pytest.raises(MissingError, match="the 5 words that NIST-5 needs"):
        _nist.nist(Texts(("a b c d",), (("a b c d e",),)))
    with pytest.raises(MissingError, match="all references are empty"):
        _nist.nist(Texts(("a b c d e",), (("",),)))


def test_rouge_by_hand() -> None:
    # The longest common subsequence "the cat sat" of 3 words, of 4 predicted and 6 wanted: F = 2 * 3 / 10.
    texts = Texts(("The cat sat, now",), (("the cat has sat on it", "no"),))
    assert value(_rouge.rouge_l(texts), "rouge_l") == pytest.approx(0.6)


def test_cider_is_the_authors_own_number() -> None:
    found = _cider.cider(by_hand()).measures["cider"]
    each = found.statistic(4 * np.eye(4))
    assert each == pytest.approx(CIDER, abs=CLOSE)
    assert found.value == pytest.approx(np.mean(CIDER), abs=CLOSE)
    with pytest.raises(MissingError, match="with one row every n-gram is equally common"):
        _cider.cider(Texts(("a",), (("a",),)))


@pytest.mark.parametrize("seed", range(3))
def test_cider_equals_pycocoevalcap_where_that_is_installed(seed: int) -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer", reason="pycocoevalcap is not installed")
    texts = random_texts(seed)
    theirs = scorer.CiderScorer()
    for own, row in zip(texts.predictions, texts.references, strict=True):
        theirs += (" ".join(tokens(own)), [" ".join(tokens(ref)) for ref in row])
    assert value(_cider.cider(texts), "cider") == pytest.approx(theirs.compute_score()[0], abs=CLOSE)


def wordnet() -> object:
    try:
        return _meteor._wordnet()
    except MissingError as error:
        pytest.skip(str(error))


def test_meteor_is_nltks_own_number() -> None:
    from nltk.translate.meteor_score import meteor_score

    reader = wordnet()
    for texts in (by_hand(), random_texts(0, rows=10)):
        pairs = zip(texts.predictions, texts.references, strict=True)
        theirs = [
            meteor_score([tokens(ref) for ref in row], tokens(own), wordnet=reader)  # type: ignore[arg-type]
            for own, row in pairs
        ]
        assert value(_meteor.meteor(texts), "meteor") == pytest.approx(np.mean(theirs), abs=CLOSE)


def test_meteor_knows_synonyms() -> None:
    wordnet()
    references = (("the boy saw a car",),)
    # nltk looks up what its stemmer leaves of a word, so that "automobile" (automobil) would not be found.
    synonym, another = (Texts((f"the boy saw one {word}",), references) for word in ("auto", "pear"))
    assert value(_meteor.meteor(synonym), "meteor") > value(_meteor.meteor(another), "meteor")


@pytest.fixture
def no_wordnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where nltk has no data and Debian's package is not there."""
    import nltk.corpus

    class Absent:
        def ensure_loaded(self) -> None:
            raise LookupError("Resource 'wordnet' not found.")

    monkeypatch.setattr(nltk.corpus, "wordnet", Absent())
    monkeypatch.setattr(_meteor, "_SHARED", str(tmp_path / "absent"))
    monkeypatch.delenv("WNSEARCHDIR", raising=False)


@pytest.mark.usefixtures("no_wordnet")
def test_without_wordnet_meteor_is_missing_and_says_how_to_mend_it() -> None:
    scores = score_texts(PREDICTIONS, REFERENCES, metrics=["meteor", "exact_match"], resamples=5)
    assert list(scores.metrics) == ["exact_match"]
    for part_ in ("no WordNet", "WNSEARCHDIR", "nltk.downloader wordnet", "wordnet-base"):
        assert part_ in scores.missing["meteor"]
    assert "missing: no WordNet" in str(scores)


@pytest.mark.usefixtures("no_wordnet")
def test_a_broken_wordnet_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text("")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(MissingError, match="cannot be read"):
        _meteor.meteor(by_hand())


@pytest.mark.parametrize(
    ("module", "package", "lost"),
    [
        ("sacrebleu.metrics.bleu", "sacrebleu", {"bleu"}),
        ("sacrebleu.tokenizers.tokenizer_13a", "sacrebleu", {"nist", "meteor", "cider"}),
        ("nltk.translate.nist_score", "nltk", {"nist"}),
        ("nltk.translate.meteor_score", "nltk", {"meteor"}),
        ("rouge_score.rouge_scorer", "rouge-score", {"rouge_l"}),
    ],
)
def test_a_library_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, lost: set[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    scores = score_texts(PREDICTIONS, REFERENCES, metrics=["exact_match", *lost], resamples=5)
    assert list(scores.metrics) == ["exact_match"]
    assert scores.missing == dict.fromkeys(lost, f"{package} is not installed: pip install 'pegbox[nlg]'")


def test_intervals_hold_the_value_and_narrow_with_rows() -> None:
    names = ["bleu", "nist", "rouge_l", "cider"]
    few, many = (
        score_texts(texts.predictions, texts.references, metrics=names, seed=3)
        for texts in (random_texts(2, rows=30), random_texts(2, rows=270))
    )
    for name in names:
        for scores in (few, many):
            estimate = scores.metrics[name]
            assert estimate.low < estimate.value < estimate.high
        widths = [scores.metrics[name].high - scores.metrics[name].low for scores in (few, many)]
        # Nine times the rows: a third of the width, give or take.
        assert widths[1] < 0.6 * widths[0]
    assert GenerationScores.from_json(few.to_json()) == few


def test_one_row_has_values_without_intervals() -> None:
    scores = score_texts(["a b c d e f"], [["a b c d e g"]], metrics=["bleu", "nist", "rouge_l", "cider"])
    assert set(scores.missing) == {"cider"}
    assert math.isnan(scores.metrics["bleu"].low)
    assert math.isnan(scores.metrics["nist"].high)
    # rouge_l is a mean of numbers from 0 to 1, and those have Wilson's.
    assert scores.metrics["rouge_l"].low < scores.metrics["rouge_l"].value < scores.metrics["rouge_l"].high


def test_perfect_texts_reach_the_ends_of_the_scales() -> None:
    predictions = [row[0] for row in REFERENCES]
    scores = score_texts(predictions, [[row] for row in predictions], metrics=["bleu", "rouge_l", "cider"])
    assert scores.metrics["bleu"].value == pytest.approx(100)
    assert scores.metrics["rouge_l"].value == 1.0
    assert scores.metrics["cider"].value == pytest.approx(10)
