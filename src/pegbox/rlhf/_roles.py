from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pegbox.models import Base
from pegbox.rlhf._rewards import Reward


@dataclass(eq=False)
class Roles:
    """The parts of one run, all on the same weights of the base.

    Args:
        base: The base.
        policy: What is trained; starts as the reference.
        reference: What it is held to.
        value: Foresees the reward before each token; ``None`` for RLOO.
        reward: Scores answers.
        gold: Another score of them, which nothing is trained on; ``None`` where there is none.
        value_is_reward: Whether the value model starts as the reward model, in that one's own units.
    """

    base: Base
    policy: nn.Module
    reference: nn.Module
    value: nn.Module | None
    reward: Reward
    gold: Reward | None = None
    value_is_reward: bool = False
