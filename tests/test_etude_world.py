import ast
import dataclasses
import hashlib
import math
import re
import sys
from itertools import islice
from pathlib import Path

import pytest

from pegbox.models.etude import world
from pegbox.models.etude.pretrain._variety import variety
from pegbox.models.etude.world import _reviews
from pegbox.models.etude.world._domains import domains

ROWS = {genre: getattr(world, genre) for genre in world.GENRES}
ALL = [(genre, domain) for genre in world.GENRES for domain in world.DOMAINS[genre]]

# Changed on purpose only: the shipped models were trained on these very texts.
DIGEST = "374c61063cb2464fdebe4071c60c6cc0e262b9161bf73b4bf073693a735241e1"


def test_same_seed_gives_the_pinned_text_on_every_platform():
    digest = hashlib.sha256()
    for genre, domain in ALL:
        if (genre, domain) not in [("reviews", name) for name in world.HELD_BACK["reviews"]]:
            digest.update(repr(ROWS[genre](domain, 10, 0, 0.1)).encode())
    for document in islice(world.documents(0, "train"), 1000):
        digest.update(repr(document).encode())
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize(("genre", "domain"), ALL)
def test_rows_depend_on_the_seed_alone(genre, domain):
    rows = ROWS[genre](domain, 20, 5)
    assert rows == ROWS[genre](domain, 20, 5)
    assert rows[:8] == ROWS[genre](domain, 8, 5)
    assert rows != ROWS[genre](domain, 20, 6)
    assert all(row.domain == domain and row.genre == genre for row in rows)


@pytest.mark.parametrize(("genre", "domain"), ALL)
def test_text_is_well_formed(genre, domain):
    for row in ROWS[genre](domain, 150, 2):
        for value in dataclasses.asdict(row).values():
            if isinstance(value, str):
                assert not re.search(r"[{}\[\]<>]|  |\.\.", value), value
                assert not re.search(r"\ba [aeio][a-z]", value.replace("a one", "").replace("a euro", "")), (
                    value
                )


def _stated_and_drawn(genre, domain, noise, rows=1500):
    """Yield (label, stated probability, 1 if drawn) over rows and labels."""
    for row in ROWS[genre](domain, rows, 11, noise):
        for label, probability in row.probabilities.items():
            yield label, probability, row.label == label


@pytest.mark.parametrize("noise", [0.0, 0.25])
@pytest.mark.parametrize(
    ("genre", "domain"),
    [("reviews", "hotels"), ("reviews", "phones"), ("news", "city"), ("passages", "people"),
     ("pairs", "farm"), ("replies", "shop"), ("instructions", "lists"), ("records", "houses")],
)  # fmt: skip
def test_labels_are_drawn_from_the_stated_probabilities(genre, domain, noise):
    bins = {}
    for label, probability, drawn in _stated_and_drawn(genre, domain, noise):
        bins.setdefault((label, int(probability * 5)), []).append((probability, drawn))
    for key, pairs in bins.items():
        expected = sum(probability for probability, _ in pairs)
        # Rows are independent, so the variance of the count is the sum of p (1 - p): 4 standard errors,
        # and half a row for bins that hold hardly any variance at all.
        spread = math.sqrt(sum(probability * (1 - probability) for probability, _ in pairs))
        assert abs(sum(drawn for _, drawn in pairs) - expected) <= 4 * spread + 0.5, key


def test_probabilities_sum_to_one_and_noise_is_folded_in():
    for genre in ("reviews", "news", "passages", "pairs", "replies"):
        domain = world.DOMAINS[genre][0]
        clean, noisy = ROWS[genre](domain, 50, 1), ROWS[genre](domain, 50, 1, 0.2)
        for before, after in zip(clean, noisy, strict=True):
            assert before.probabilities.keys() == after.probabilities.keys()
            others = len(before.probabilities) - 1
            for label, p in before.probabilities.items():
                assert after.probabilities[label] == pytest.approx(0.8 * p + 0.2 * (1 - p) / others, abs=1e-8)
            # Probabilities are rounded to nine digits each.
            assert sum(after.probabilities.values()) == pytest.approx(1, abs=1e-7)


def test_wrong_noise_is_refused():
    with pytest.raises(ValueError, match="noise must lie between 0 and 1"):
        world.reviews("phones", 1, 0, 1.5)


def test_review_truth_is_the_sum_of_its_opinions():
    for row in world.reviews("hotels", 300, 4):
        assert row.score == pytest.approx(sum(opinion.strength for opinion in row.opinions), abs=1e-5)
        expected = 1 / (1 + math.exp(-_reviews.SHARPNESS * row.score))
        assert row.probabilities["positive"] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("domain", world.HELD_BACK["reviews"])
def test_best_possible_accuracy_leaves_headroom(domain):
    rows = world.reviews(domain, 4000, 9)
    best = sum(max(row.probabilities.values()) for row in rows) / len(rows)
    assert 0.90 <= best <= 0.95
    # Both labels alike: 4000 fair draws have a standard error of 0.008.
    assert abs(sum(row.label == "positive" for row in rows) / len(rows) - 0.5) < 0.033


def test_gold_tags_mark_the_names():
    for row in world.names("expeditions", 200, 3):
        assert len(row.tokens) == len(row.label)
        assert row.text.split(" ") == list(row.tokens)
        assert sum(tag.startswith("B-") for tag in row.label) == len(row.probabilities)
        for before, tag in zip(("O", *row.label), row.label, strict=False):
            assert tag in world.TAGS
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]


def test_name_noise_swaps_types_at_the_stated_rate():
    clean, noisy = (world.names("markets", 800, 3, noise) for noise in (0.0, 0.3))
    flips = total = 0
    for row in noisy:
        given = [tag[2:] for tag in row.label if tag.startswith("B-")]
        for kind, truth in zip(given, row.probabilities, strict=True):
            flips += truth[kind] < 0.5
            total += 1
    assert all(max(truth.values()) == 1.0 for row in clean for truth in row.probabilities)
    assert abs(flips - 0.3 * total) <= 4 * math.sqrt(total * 0.3 * 0.7)


def test_gold_reward_reads_any_text():
    assert world.politeness("") == 0.0
    assert world.politeness("Thank you, thank you!") == world.politeness("thank you") == 1.0
    assert world.politeness("Shut up, you idiot. Get lost, that is not my problem.") == -3.0
    assert world.politeness("Shut up, please.") == pytest.approx(-0.9)
    for row in world.replies("airport", 200, 1):
        assert row.reward == world.politeness(row.reply)


def test_documents_are_varied():
    # Measured 0.996, 0.64 and 3302 over 10 000 documents; fewer documents repeat less and know fewer words.
    measured = variety(document.text for document in islice(world.documents(0, "train"), 3000))
    assert measured.documents > 0.99
    assert measured.sentences > 0.70
    assert measured.types > 2300
    demo = variety(row.text for row in world.reviews("hotels", 1000, 0))
    assert demo.documents > 0.995


def test_documents_never_use_a_held_back_domain():
    seen = {genre: set() for genre in world.GENRES}
    for split in ("train", "valid"):
        for document in islice(world.documents(0, split), 4000):
            seen[document.genre].add(document.domain)
    for genre, used in seen.items():
        assert used == set(world.DOMAINS[genre]) - set(world.HELD_BACK[genre])


def test_held_back_opinion_words_are_new():
    held = [spec for name, spec in domains().items() if name in world.HELD_BACK["reviews"]]
    seen = [spec for name, spec in domains().items() if name not in world.HELD_BACK["reviews"]]
    general = {word for bank in _reviews._GENERAL.values() for word in bank}

    def adjectives(specs):
        return {
            word
            for spec in specs
            for aspect in spec.aspects
            for bank in aspect.adjectives.values()
            for word in bank
        }

    assert not adjectives(held) & (adjectives(seen) | general)
    text = " ".join(document.text for document in islice(world.documents(0, "train"), 10_000)).lower()
    for word in ("bedbugs", "spotless", "lumpy", "mildewed", "threadbare", "squealing"):
        assert word not in text


def test_splits_share_no_document():
    train = {document.text for document in islice(world.documents(0, "train"), 3000)}
    valid = [document.text for document in islice(world.documents(0, "valid"), 3000)]
    # Short fixed questions (sums, plurals) come up on both sides; nothing of any length may.
    assert not [text for text in valid if len(text) > 120 and text in train]
    with pytest.raises(ValueError, match="'train' or 'valid'"):
        next(world.documents(0, "test"))


def test_second_part_ends_the_text():
    parts = [document for document in islice(world.documents(1, "train"), 2000) if document.second]
    assert parts
    assert all(document.text.endswith(" " + document.second) for document in parts)


def test_the_world_imports_the_standard_library_alone():
    folder = Path(world.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = (
                    [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                )
                for name in names:
                    assert (
                        name.startswith("pegbox.models.etude.world")
                        or name.split(".")[0] in sys.stdlib_module_names
                    )
