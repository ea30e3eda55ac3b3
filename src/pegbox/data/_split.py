import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import floor

from pegbox.data._rows import R, Rows
from pegbox.data._table import counted, rows_text
from pegbox.data._text import label_order, normalised
from pegbox.errors import InputError, UsageError

_TOLERANCE = 1e-6


def split(examples: R, *, fractions: Mapping[str, float], seed: int = 0) -> dict[str, R]:
    """Split examples into named parts, by class, with equal texts on one side.

    Each class is dealt out by largest remainder over its distinct texts (case and spaces do not count), so
    that every part gets every class. The order is by SHA-256 of seed and text: the same on every platform,
    whatever the order of the rows. Near duplicates are not kept together; the doctor names those.

    Args:
        examples: Labelled or unlabelled rows of any kind of task.
        fractions: Part name to fraction; they add up to 1.
        seed: Another seed gives another split.

    Returns:
        Part name to its rows, in their original order.

    Raises:
        UsageError: Fractions that are not positive or do not add up to 1.
        InputError: A class, named, with fewer distinct texts than there are parts.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > _TOLERANCE:
        raise UsageError(
            f"Fractions cannot be {dict(fractions)}", expected="positive numbers that add up to 1",
            fix="for example train 0.8, valid 0.1, test 0.1",
        )  # fmt: skip
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    carry = dict.fromkeys(fractions, 0.0)
    for label, groups in _groups(examples, seed).items():
        if len(groups) < len(fractions):
            raise _too_few(examples, label, groups, len(fractions))
        shares = {name: fraction * len(groups) + carry[name] for name, fraction in fractions.items()}
        counts = _dealt(shares, len(groups))
        start = 0
        for name, count in counts.items():
            parts[name].extend(i for group in groups[start : start + count] for i in group)
            carry[name] = shares[name] - count
            start += count
    return {name: examples.select(sorted(indices)) for name, indices in parts.items()}


def take(examples: R, rows: int, seed: int, per_class: bool = False) -> R:
    """Return a seeded subset with the classes in proportion; a smaller one is the start of a larger one.

    One row of each class comes first, rarest class last, then rows in the proportion of the classes.

    Args:
        examples: Labelled or unlabelled rows of any kind of task.
        rows: How many rows, or how many of each class.
        seed: Another seed gives another subset.
        per_class: Whether ``rows`` counts per class.

    Raises:
        InputError: There are fewer rows, or fewer of a named class, than asked for.
    """
    labels = examples.labels or ("",) * len(examples)
    counts = Counter(labels)
    short = [name for name in sorted(counts, key=label_order) if counts[name] < rows]
    if rows < 1 or (per_class and short) or (not per_class and rows > len(examples)):
        has = (
            f"class {short[0]!r} has {counts[short[0]]:,}"
            if per_class and short
            else f"there are {len(examples):,}"
        )
        raise InputError(
            f"Cannot take {rows:,} rows{' of each class' if per_class else ''}: {has}", where=examples.source,
            expected="at least 1 row and at most what is there", fix="ask for fewer rows",
        )  # fmt: skip
    places: Counter[str] = Counter()
    ranked: list[tuple[float, int, str, int, int]] = []
    for index in _ordered(examples, seed):
        label = labels[index]
        place, places[label] = places[label], places[label] + 1
        position = float(place) if per_class else (place + 0.5) / counts[label] if place else -1.0
        ranked.append((position, -counts[label], label, len(ranked), index))
    wanted = rows * len(counts) if per_class else rows
    return examples.select([item[-1] for item in sorted(ranked)[:wanted]])


def _ordered(examples: Rows, seed: int) -> list[int]:
    """Return the row positions in seeded order; equal texts stay in row order."""
    keys = [_key(seed, text) for text in examples.texts]
    return sorted(range(len(examples)), key=lambda i: (keys[i], i))


def _key(seed: int, texts: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join((str(seed), *map(normalised, texts))).encode()).digest()


def _groups(examples: Rows, seed: int) -> dict[str, list[list[int]]]:
    """Return, per class, the row positions that share a text, in seeded order.

    A text with conflicting labels goes with the label it has most often.
    """
    same: dict[bytes, list[int]] = {}
    for index, texts in enumerate(examples.texts):
        same.setdefault(_key(seed, texts), []).append(index)
    labels = examples.labels or ("",) * len(examples)
    found: dict[str, list[list[int]]] = {label: [] for label in sorted(set(labels), key=label_order)}
    for _, group in sorted(same.items()):
        votes = Counter(labels[i] for i in group)
        found[min(votes, key=lambda label: (-votes[label], label_order(label)))].append(group)
    return found or {"": []}


def _dealt(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers of at least 1 that add up to ``total``, by largest remainder."""
    counts = {name: max(floor(share), 1) for name, share in shares.items()}
    while sum(counts.values()) < total:
        counts[max(shares, key=lambda name: shares[name] - counts[name])] += 1
    while sum(counts.values()) > total:
        counts[
            min((name for name in shares if counts[name] > 1), key=lambda name: shares[name] - counts[name])
        ] -= 1
    return counts


def _too_few(examples: Rows, label: str, groups: Sequence[Sequence[int]], parts: int) -> InputError:
    numbers = [examples.numbers[i] for group in groups for i in group]
    what = f"Class {label!r} has" if examples.labels is not None else "The examples have"
    return InputError(
        f"{what} {counted(len(groups), 'distinct text')}, too few for {parts} parts",
        where=f"{examples.source}, {rows_text(numbers)}" if numbers else examples.source,
        expected="each class in each part, with equal texts in one part",
        fix="add rows of it, leave the class out, or split into fewer parts",
    )  # fmt: skip
