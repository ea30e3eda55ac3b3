from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pegbox.tasks._tokens import following_ids, plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Soft:
    """Where a prompt holds soft tokens: ids above the vocabulary, which an adapter gives embeddings.

    Their ids go up in reading order, except that each demonstration has the question's own anew.

    Args:
        first: Id of the first one: the number of rows of the embedding.
        front: How many stand at the front, after the tokenizer's own leading special tokens.
        marks: How many the template marks.
        back: How many stand directly before the answer.
    """

    first: int
    front: int = 0
    marks: int = 0
    back: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self.front + self.marks + self.back

    @property
    def leading(self) -> list[int]:
        """Ids of those at the front."""
        return list(range(self.first, self.first + self.front))

    @property
    def inner(self) -> list[int]:
        """Ids of those within the template, in reading order."""
        return list(range(self.first + self.front, self.first + self.count))


def woven_ids(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[str]],
    soft: Sequence[int] = (),
    *,
    follows: bool = False,
) -> list[list[int]]:
    """Token ids of texts in pieces without special tokens, with one soft token between each two pieces.

    Args:
        tokenizer: The tokenizer.
        texts: Each text's pieces, as many in each.
        soft: Ids of the soft tokens, in order; further ones are not used.
        follows: Whether the first piece stands in the middle of a line, as the further ones do.
    """
    first = following_ids if follows else plain_ids
    found = first(tokenizer, [pieces[0] for pieces in texts])
    rest = [piece for pieces in texts for piece in pieces[1:]]
    further = iter(following_ids(tokenizer, rest) if rest else [])
    for ids, pieces in zip(found, texts, strict=True):
        for mark, _ in zip(soft, pieces[1:], strict=False):
            ids += [mark, *next(further)]
    return found
