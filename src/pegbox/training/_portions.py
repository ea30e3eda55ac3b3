"""How many rows go through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pegbox.training._memory import ran_out


class Portions:
    """Cuts batches into what one forward pass takes, and halves that when memory runs out.

    A batch is cut, never changed: the same rows make up an optimiser step, and their gradients and numbers
    of answers add up to the same sums.

    Args:
        rows: Most rows of one forward pass.
        halving: Whether it may be halved. Not with several processes: they wait for each other within a
            backward pass, and one alone cannot repeat it.
        lengths: Tokens of each row.
        say: Told about each halving.
        tokens: Most tokens of one forward pass, padding included, where rows are cut by that too; a longer
            row goes alone.
    """

    def __init__(
        self,
        rows: int,
        *,
        halving: bool,
        lengths: Sequence[int],
        say: Callable[[str], None],
        tokens: int | None = None,
    ) -> None:
        self.rows = rows
        self.halving, self.lengths, self.say = halving, lengths, say
        self.tokens = tokens if halving else None

    def cut(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Yield ``indices`` in parts of at most `rows`, and of like lengths where tokens are counted."""
        size = self.rows if self.halving else max(len(indices), 1)
        if self.tokens is None:
            for start in range(0, len(indices), size):
                yield list(indices[start : start + size])
            return
        part: list[int] = []
        for index in sorted(indices, key=lambda index: (-int(self.lengths[index]), index)):
            longest = int(self.lengths[part[0]]) if part else 0
            if part and (len(part) == size or (len(part) + 1) * longest > self.tokens):
                yield part
                part = []
            part.append(index)
        if part:
            yield part

    def shrink(self, problem: RuntimeError, indices: Sequence[int], where: str) -> bool:
        """Halve the rows of one forward pass, if ``problem`` is that memory ran out and there are several.

        Args:
            problem: What a forward or backward pass raised.
            indices: The batch it was raised for.
            where: When, for the line that is said.

        Returns:
            Whether it is worth trying again.
        """
        tried = min(self.rows, len(indices))
        if not (self.halving and tried > 1 and ran_out(problem)):
            return False
        while self.rows >= tried:
            self.rows //= 2
        longest = max(int(self.lengths[index]) for index in indices)
        self.say(
            f"out of memory {where} with {tried} rows of up to {longest} tokens: going on with {self.rows} "
            f"row{'s' if self.rows > 1 else ''} at once; batches and gradients stay the same"
        )
        return True
