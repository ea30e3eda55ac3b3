from __future__ import annotations

from collections.abc import Callable

from pegbox.data import Examples
from pegbox.models._base import Base
from pegbox.models._features import FeatureCache, extract
from pegbox.tasks import Encoded, Prompt, TooLong, most_similar


def encode(
    base: Base,
    prompt: Prompt,
    rows: Examples,
    *,
    too_long: TooLong = "shorten",
    cache: FeatureCache | None = None,
    say: Callable[[str], None] = lambda line: None,
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
    plain = prompt.with_demonstrations(())
    pool = _pool(prompt)
    encoded = plain.encode(rows, too_long=too_long)
    queries = extract(base, plain, encoded, cache=cache, say=say).hidden.numpy()
    features = extract(base, plain, plain.encode(pool), cache=cache, say=say).hidden.numpy()
    known = {texts: index for index, texts in enumerate(zip(*pool.fields.values(), strict=True))}
    same = [known.get(texts) for texts in zip(*rows.fields.values(), strict=True)]
    chosen = most_similar(pool, features, queries, prompt.task.labels, prompt.task.similar, same=same)
    parts, left_out = [], 0
    for index, shown in enumerate(chosen):
        while shown and _full(plain.with_demonstrations(shown), encoded.lengths[index]):
            shown, left_out = shown[1:], left_out + 1
        parts.append(plain.with_demonstrations(shown).encode(rows.select([index]), too_long=too_long))
    if left_out:
        say(f"{left_out} similar demonstrations left out to fit the context of {prompt.context} tokens")
    return Encoded(
        ids=tuple((*part.prefix, *part.ids[0]) for part in parts),
        positions=tuple(part.positions[0] for part in parts),
        shortened=tuple(number for part in parts for number in part.shortened),
        source=rows.source,
    )


def _full(prompt: Prompt, length: int) -> bool:
    room = prompt.context - len(prompt.demonstration_ids())
    return room < min(length, prompt.context // 2)


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
