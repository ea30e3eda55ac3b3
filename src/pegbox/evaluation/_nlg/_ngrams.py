from collections import Counter
from collections.abc import Sequence

Gram = tuple[str, ...]


def counts(tokens: Sequence[str], order: int) -> Counter[Gram]:
    """How often each n-gram of ``order`` words occurs."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))
