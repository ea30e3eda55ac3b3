"""Written conversations as token ids, and which of them the model says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from pegbox.tasks._chat import Piece, special_pattern
from pegbox.tasks._prompt import Kind
from pegbox.tasks._soft import Soft
from pegbox.tasks._tokens import edges, plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A text, whether it follows another, and whether special tokens in it are meant.
_Job = tuple[str, bool, bool]


@dataclass(frozen=True)
class _Run:
    jobs: tuple[_Job, ...]
    said: bool
    end: bool


@dataclass(frozen=True)
class ChatTokens:
    """Tokenises conversations that a :class:`ChatWriter` wrote.

    Args:
        tokenizer: The model's tokenizer.
        kind: The kind of model.
        soft: Soft tokens that stand before every text.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    soft: Soft | None = None

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Where a text spells out a special token."""
        return special_pattern(self.tokenizer)

    def code(
        self, rows: Sequence[Sequence[Piece]], *, edged: bool = True
    ) -> tuple[list[list[int]], list[list[bool]]]:
        """Token ids of written conversations and whether the model says each.

        What it says is tokenised on its own, since it begins there when it answers. Special tokens spelt out
        in a message stay plain text.
        """
        runs = [self._runs(pieces) for pieces in rows]
        jobs = list(dict.fromkeys(job for row in runs for run in row for job in run.jobs))
        known = dict(zip(jobs, self._coded(jobs), strict=True))
        start, end = edges(self.tokenizer) if edged else ([], [])
        stop = self.tokenizer.eos_token_id
        ids, said = [], []
        for row in runs:
            own: list[int] = []
            marks: list[bool] = []
            for run in row:
                added = [token for job in run.jobs for token in known[job]]
                if run.end and stop is not None:
                    added.append(stop)
                own += added
                marks += [run.said] * len(added)
            if edged:
                self._edge(own, marks, start, end)
            ids.append(own)
            said.append(marks)
        return ids, said

    def _runs(self, pieces: Sequence[Piece]) -> list[_Run]:
        """Stretches that the model says or does not say, each tokenised as one text where that is safe."""
        found: list[_Run] = []
        for said, group in groupby(pieces, key=lambda piece: piece.said):
            run = list(group)
            parts = [(piece.text, piece.own) for piece in run]
            if not any(not own and self.special.search(text) for text, own in parts):
                parts = [("".join(text for text, _ in parts), any(own for _, own in parts))]
            later = bool(found)
            jobs = tuple((text, later or at > 0, own) for at, (text, own) in enumerate(parts) if text)
            found.append(_Run(jobs, said, run[-1].end))
        return found

    def _edge(self, ids: list[int], said: list[bool], start: list[int], end: list[int]) -> None:
        """Put the tokenizer's own edges around a text, unless the template wrote them, and soft tokens."""
        if start and ids[: len(start)] != start:
            ids[:0] = start
            said[:0] = [False] * len(start)
        at = len(start) if start else int(bool(ids) and ids[0] == self.tokenizer.bos_token_id)
        if self.soft is not None:
            ids[at:at] = self.soft.leading
            said[at:at] = [False] * len(self.soft.leading)
        if self.kind == "encoder-decoder":
            ids += end
            said += [False] * len(end)

    def _coded(self, jobs: Sequence[_Job]) -> list[list[int]]:
        """Token ids of texts; those in the middle of a line get no space of their own."""
        found: dict[_Job, list[int]] = {}
        for meant in (False, True):
            own = [job for job in jobs if job[2] == meant]
            follows = [job for job in own if job[1]]
            head = self._plain(["x"], meant)[0] if follows else []
            whole = self._plain(["x" + text for text, _, _ in follows], meant)
            for job, ids in zip(follows, whole, strict=True):
                if ids[: len(head)] == head:
                    found[job] = ids[len(head) :]
            rest = [job for job in own if job not in found]
            found |= dict(zip(rest, self._plain([text for text, _, _ in rest], meant), strict=True))
        return [found[job] for job in jobs]

    def _plain(self, texts: list[str], meant: bool) -> list[list[int]]:
        return plain_ids(self.tokenizer, texts, special=meant)
