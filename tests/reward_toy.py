"""Toy preferences, and those of etude's world, for the tests of reward models."""

import random
from typing import Any

from pegbox.data import Message, Preferences
from pegbox.models.etude.world import politeness, replies

GOOD, BAD = "great", "terrible"
THINGS = ("kettle", "hotel", "screen", "breakfast", "tea", "staff")


def preferences_of(*pairs: tuple[str, str, str], **options: Any) -> Preferences:
    """Pairs of (prompt, chosen, rejected)."""
    return Preferences(
        "toy pairs",
        tuple((Message("user", prompt),) for prompt, _, _ in pairs),
        tuple(chosen for _, chosen, _ in pairs),
        tuple(rejected for _, _, rejected in pairs),
        tuple(range(1, len(pairs) + 1)),
        **options,
    )


def toy_pairs(count: int = 8, seed: int = 0) -> Preferences:
    """Pairs whose better answer says ``great``, of several lengths."""
    dice = random.Random(seed)
    made = []
    for index in range(count):
        thing, other = dice.choice(THINGS), dice.choice(THINGS)
        longer = f" and the {other} was okay" * dice.randrange(2)
        made.append(
            (f"Was the {thing} {index} good?", f"The {thing} was {GOOD}{longer}.", f"It was {BAD} tea.")
        )
    return preferences_of(*made)


def world_pairs(domain: str, count: int, seed: int) -> Preferences:
    """Two replies to a message of etude's world, the politer one preferred by the exact gold reward."""
    found = replies(domain, 4 * count, seed)
    pairs = []
    for first, second in zip(found[::2], found[1::2], strict=True):
        better, worse = sorted((first, second), key=lambda reply: -politeness(reply.reply))
        if politeness(better.reply) > politeness(worse.reply):
            pairs.append((first.message, better.reply, worse.reply))
    return preferences_of(*pairs[:count])
