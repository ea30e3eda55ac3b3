from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from pegbox.data._text import words_only

SHINGLE = 5
THRESHOLD = 0.8
_BANDS, _BAND_ROWS = 24, 5
_WINDOW = 32
_BLOCK = 4096

Ints = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


def near_pairs(texts: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Return the pairs ``i < j`` of rows whose texts are near duplicates, sorted.

    Two texts are near when the Jaccard similarity of their sets of 5-character shingles (case folded, without
    punctuation) is at least 0.8; of sentence pairs, both texts must be near. Candidates come from MinHash
    signatures in 24 bands of 5 (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
    chapter 3): a pair at 0.8 is missed with probability (1 - 0.8^5)^24 < 1e-4. Each is then verified on the
    shingle sets themselves, so what is returned is exact. Time: O(120 characters) for the signatures and
    O(24 (rows log rows + 32 rows)) for the candidates: a row is compared with the next 32 of its bucket, so
    that thousands of copies of one template stay linear and still form one group, mostly.

    Args:
        texts: The texts ``(rows, columns)``; give each exact duplicate once.
    """
    if len(texts) < 2:
        return []
    cleaned = [tuple(words_only(part) for part in row) for row in texts]
    signatures = _signatures([" | ".join(row) for row in cleaned])
    return [
        (i, j)
        for i, j in _candidates(signatures)
        if all(_jaccard(a, b) >= THRESHOLD for a, b in zip(cleaned[i], cleaned[j], strict=True))
    ]


@lru_cache(maxsize=8192)
def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1)))


def _jaccard(first: str, second: str) -> float:
    one, two = _shingles(first), _shingles(second)
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def _signatures(texts: Sequence[str]) -> Ints:
    """Return MinHash signatures ``(rows, bands * band rows)``."""
    width = _BANDS * _BAND_ROWS
    scale, shift = _mixed(np.arange(1, 2 * width + 1, dtype=np.uint64)).reshape(2, width)
    scale |= np.uint64(1)
    found = np.empty((len(texts), width), dtype=np.uint64)
    for start in range(0, len(texts), _BLOCK):
        hashes, starts = _hashes(texts[start : start + _BLOCK])
        for column, (a, b) in enumerate(zip(scale, shift, strict=True)):
            found[start : start + _BLOCK, column] = np.minimum.reduceat(hashes * a + b, starts)
    return found


def _hashes(texts: Sequence[str]) -> tuple[Ints, np.ndarray]:
    """Return one hash per shingle ``(shingles,)`` and where each text's shingles begin ``(rows,)``."""
    padded = [text.ljust(SHINGLE) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    rolling = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        rolling = rolling * np.uint64(1_000_003) + codes[offset : offset + len(rolling)]
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)
    for offset in range(1, SHINGLE):
        inside[ends - offset] = False
    counts = lengths - SHINGLE + 1
    return _mixed(rolling[inside[: len(rolling)]]), np.concatenate([[0], np.cumsum(counts)[:-1]])


def _mixed(values: Ints) -> Ints:
    """Spread the bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _candidates(signatures: Ints) -> Iterator[tuple[int, int]]:
    """Yield the pairs that share a band and whose signatures agree as a pair at 0.8 would, sorted."""
    rows, width = signatures.shape
    # four standard deviations below 0.8 of the agreement of `width` hashes
    floor = THRESHOLD - 4 * (THRESHOLD * (1 - THRESHOLD) / width) ** 0.5
    found = []
    for band in range(_BANDS):
        part = signatures[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS]
        keys: Ints = np.zeros(rows, dtype=np.uint64)
        for column in part.T:
            keys = _mixed(keys * np.uint64(31) + column)
        order = np.argsort(keys, kind="stable")
        for i, j in _neighbours(keys[order], order):
            for low in range(0, len(i), _BLOCK):
                a, b = i[low : low + _BLOCK], j[low : low + _BLOCK]
                agree = (signatures[a] == signatures[b]).mean(axis=1) >= floor
                found.append(a[agree] * rows + b[agree])
    codes = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    yield from ((int(code) // rows, int(code) % rows) for code in codes)


def _neighbours(keys: Ints, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs ``i < j`` with equal keys at most ``_WINDOW`` places apart in key order."""
    for step in range(1, _WINDOW + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            return
        one, two = order[same], order[same + step]
        yield np.minimum(one, two), np.maximum(one, two)


def groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the connected groups of the pairs, each sorted, in order of their first member."""
    parent: dict[int, int] = {}

    def root(item: int) -> int:
        while parent.setdefault(item, item) != item:
            parent[item] = item = parent[parent[item]]
        return item

    for one, two in pairs:
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    found: dict[int, list[int]] = {}
    for item in sorted(parent):
        found.setdefault(root(item), []).append(item)
    return list(found.values())
