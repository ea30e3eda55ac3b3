from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pegbox.errors import UsageError, check_names, is_number, is_whole


@dataclass(frozen=True)
class Decoding:
    """How a model's answer is decoded: greedily by default, by beams, or by sampling.

    Args:
        max_tokens: Most tokens of an answer, its end among them.
        beams: Beams of a beam search; 1 for none.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        sample: Whether tokens are drawn instead of the most probable taken.
        temperature: What the logits are divided by before a draw.
        top_p: Draw among the most probable tokens that together have this probability.
        top_k: Draw among so many tokens; 0 for all.
        repetition_penalty: What the scores of tokens that stand there already are divided by (Keskar et al.
            2019); 1 for none.
        seed: Seed of the draws.

    Raises:
        UsageError: For values that cannot be.
    """

    max_tokens: int = 128
    beams: int = 1
    length_penalty: float = 1.0
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("beams", 1), ("top_k", 0), ("seed", 0)):
            value = getattr(self, name)
            if not is_whole(value, least):
                raise _wrong(name, value, f"a whole number of at least {least}")
        if not isinstance(self.sample, bool):
            raise _wrong("sample", self.sample, "true or false")
        for name in ("temperature", "repetition_penalty", "top_p", "length_penalty"):
            value = getattr(self, name)
            any_sign = name == "length_penalty"
            if not is_number(value) or (value <= 0 and not any_sign):
                raise _wrong(name, value, "a finite number" if any_sign else "a finite number above 0")
        if self.top_p > 1:
            raise _wrong("top_p", self.top_p, "a share of at most 1")
        given = [name for name in ("temperature", "top_p", "top_k") if getattr(self, name) != _DEFAULT[name]]
        if given and not self.sample:
            raise UsageError(
                f"{' and '.join(given)} steer draws, and nothing is drawn",
                where=f"decoding.{given[0]} {getattr(self, given[0])!r}",
                expected="decoding.sample true beside it",
                fix=f"add --decoding.sample true, or leave {given[0]} out",
            )

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Decoding:
        """A decoding of some named values.

        Raises:
            UsageError: For a name that is none, or a wrong value.
        """
        known = [one.name for one in fields(cls)]
        check_names(values or {}, known, "there is no decoding setting {!r}", where="decoding.{}")
        return cls(**(values or {}))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)


_DEFAULT = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(
        f"the decoding setting {name} cannot be {value!r}",
        where=f"decoding.{name}",
        expected=expected,
        fix="leave it out for its default",
    )
