"""Reinforcement learning from rewards: PPO and RLOO on one copy of the weights."""

from pegbox.rlhf._align import METRICS, Aligner
from pegbox.rlhf._monitor import Monitor
from pegbox.rlhf._rewards import FunctionReward, Reward, Scale
from pegbox.rlhf._roles import Roles
from pegbox.rlhf._rollouts import Prompts, Rollouts
from pegbox.rlhf._sample import sample
from pegbox.rlhf._sequences import Answered, Batch, logprobs, values
from pegbox.rlhf._settings import Alignment
from pegbox.rlhf._signals import (
    Frontier,
    KLControl,
    clipped,
    frontier,
    gae,
    leave_one_out,
    preference_loss,
    reweighted,
    token_rewards,
    value_loss,
    whiten,
)

__all__ = [
    "METRICS",
    "Aligner",
    "Alignment",
    "Answered",
    "Batch",
    "Frontier",
    "FunctionReward",
    "KLControl",
    "Monitor",
    "Prompts",
    "Reward",
    "Roles",
    "Rollouts",
    "Scale",
    "clipped",
    "frontier",
    "gae",
    "leave_one_out",
    "logprobs",
    "preference_loss",
    "reweighted",
    "sample",
    "token_rewards",
    "value_loss",
    "values",
    "whiten",
]
