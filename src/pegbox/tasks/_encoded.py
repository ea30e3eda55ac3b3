from dataclasses import dataclass
from hashlib import sha256

from pegbox.data import rows_text


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids, not padded.

    Args:
        ids: Token ids of each row, special tokens included.
        positions: Index in ``ids`` (plus the prefix) whose output holds the answer, or in ``decoder`` where
            there is one; 0 for encoders.
        types: Token type ids, where the tokenizer makes them.
        prefix: Token ids that stand before every row and are the same for all (shared demonstrations).
        shortened: Row numbers whose text was cut to fit the context.
        source: Where the rows come from.
        decoder: Token ids that the decoder of an encoder-decoder reads before the answer, for all rows.
    """

    ids: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    types: tuple[tuple[int, ...], ...] | None = None
    prefix: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()
    source: str = ""
    decoder: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row without the prefix."""
        return [len(row) for row in self.ids]

    def digest(self) -> str:
        """SHA-256 over all that a model sees."""
        content = sha256()
        decoder = (self.decoder,) if self.decoder else ()
        for part in (self.prefix, self.positions, *self.ids, *(self.types or ()), *decoder):
            content.update(repr(tuple(part)).encode())
        return content.hexdigest()

    def notes(self) -> list[str]:
        """A line on shortened rows, if any, that names their source."""
        if not self.shortened:
            return []
        where = f"{self.source}: " if self.source else ""
        counts = f"{len(self.shortened)} of {len(self)} texts"
        return [f"{where}{counts} shortened to fit the context ({rows_text(self.shortened)})"]
