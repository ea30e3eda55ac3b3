from __future__ import annotations

from collections.abc import Callable

from pegbox.data import Examples
from pegbox.models._base import Base
from pegbox.models._cache import FeatureCache
from pegbox.models._features import extract
from pegbox.tasks import Encoded, Prompt, TooLong, nearest_rows, text_keys


def encode(
    base: Base,
    prompt: Prompt,
    rows: Examples,
    *,
    too_long: TooLong = "shorten",
    cache: FeatureCache | None = None,
    say: Callable[[str], None] | None = None,
) -> Encoded:
    """Rows as token ids with the demonstrations that the prompt asks for.

    Args:
        base: The base, whose features tell what is similar.
        prompt: The task, made ready for the base.
        rows: The rows.
        too_long: See :meth:`pegbox.tasks.Prompt.encode`.
        cache: Feature cache.
        say: Receives lines for the user.
    """
    if prompt.task.similar is None:
        return prompt.encode(rows, too_long=too_long)
    chosen = _similar(base, prompt, rows, prompt.task.similar, cache, say)
    solved = prompt.solved_ids(prompt.task.demonstrations)
    plain = prompt.with_demonstrations(())
    shown: list[list[int]] = []
    left_out = 0
    for picked, length in zip(chosen, plain.encode(rows, too_long=too_long).lengths, strict=True):
        room = prompt.context - min(length, prompt.context // 2)
        kept = _nearest_that_fit(picked, solved, room)
        left_out += len(picked) - len(kept)
        shown.append([token for index in kept for token in solved[index]])
    if left_out and say:
        say(f"{left_out} similar demonstrations left out to fit the context of {prompt.context} tokens")
    return plain.encode_after(rows, shown, too_long=too_long)


def _similar(
    base: Base,
    prompt: Prompt,
    rows: Examples,
    per_class: int,
    cache: FeatureCache | None,
    say: Callable[[str], None] | None,
) -> list[list[int]]:
    """For each row the pool's most similar demonstrations, the nearest last, never the row itself."""
    plain, pool = prompt.without_soft().with_demonstrations(()), _pool(prompt)
    queries, features = (
        extract(base, plain, plain.encode(part), cache=cache, say=say, need_logits=False).hidden.numpy()
        for part in (rows, pool)
    )
    known = {key: index for index, key in enumerate(text_keys(pool))}
    same = [known.get(key) for key in text_keys(rows)]
    return nearest_rows(pool, features, queries, prompt.task.labels, per_class, same=same)


def _nearest_that_fit(picked: list[int], solved: list[list[int]], room: int) -> list[int]:
    """Leave out the least similar, which come first, until the rest fits."""
    for start in range(len(picked)):
        if sum(len(solved[index]) for index in picked[start:]) <= room:
            return picked[start:]
    return []


def _pool(prompt: Prompt) -> Examples:
    shown = prompt.task.demonstrations
    names = prompt.task.fields
    return Examples(
        source="demonstrations",
        fields={name: tuple(item.fields[name] for item in shown) for name in names},
        labels=tuple(item.label for item in shown),
        numbers=tuple(range(1, len(shown) + 1)),
        dropped=(),
    )
