"""The arithmetic of reinforcement learning on tokens: pure functions of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def token_rewards(policy: Tensor, reference: Tensor, mask: Tensor, scores: Tensor, beta: float) -> Tensor:
    """Reward of each token: minus beta times its log-ratio, and the score on the last real one.

    The log-ratio is the plain difference (the k1 estimator), whose expectation is the divergence; its
    absolute or squared forms in a reward hardly hold a policy back.

    Args:
        policy: (rows, tokens) log-probabilities under the policy that wrote the answers.
        reference: The same under the reference.
        mask: (rows, tokens) which tokens are real, the end of the answer among them.
        scores: (rows,) score of each whole answer.
        beta: Weight of the divergence.
    """
    rewards = -beta * (policy - reference) * mask
    last = mask.sum(1) - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores.to(rewards.dtype)
    return rewards


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16) and the returns they imply.

    Args:
        rewards: (rows, tokens).
        values: (rows, tokens) what was foreseen before each token.
        mask: (rows, tokens) real tokens, all at the beginning of their rows.
        gamma: Discount.
        lam: Decay of the estimates' horizon.

    Returns:
        Advantages and returns, (rows, tokens) each, 0 where no token is real.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    ahead = torch.zeros_like(following)
    for at in range(rewards.shape[1] - 1, -1, -1):
        real = mask[:, at]
        surprise = rewards[:, at] + gamma * ahead - values[:, at]
        following = torch.where(real, surprise + gamma * lam * following, torch.zeros_like(following))
        ahead = torch.where(real, values[:, at], torch.zeros_like(ahead))
        advantages[:, at] = following
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Values with mean 0 and standard deviation 1 over the real tokens; 0 elsewhere."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    variance = ((values - mean).square() * mask).sum() / count
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def leave_one_out(returns: Tensor, draws: int) -> Tensor:
    """Each answer's return less the mean of its prompt's other answers (RLOO; Ahmadian et al. 2024).

    Args:
        returns: (prompts x draws,) returns, the draws of one prompt in a row.
        draws: Answers of each prompt, at least 2.
    """
    grouped = returns.view(-1, draws)
    others = (grouped.sum(1, keepdim=True) - grouped) / (draws - 1)
    return (grouped - others).flatten()


def clipped(log_ratio: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Summed clipped surrogate loss (Schulman et al. 2017, eq. 7), and how many ratios were clipped.

    Args:
        log_ratio: Log-probabilities now less those when the answers were written.
        advantages: Of the same shape.
        mask: What counts.
        clip: Largest change of the ratio that still pays.
    """
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = torch.where(mask, torch.maximum(plain, bounded), torch.zeros_like(plain)).sum()
    return loss, ((bounded > plain) & mask).sum()


def value_loss(
    values: Tensor, before: Tensor, returns: Tensor, mask: Tensor, clip: float | None = None
) -> Tensor:
    """Half the summed squared error of values, pessimistically clipped around those before where asked."""
    errors = (values - returns).square()
    if clip is not None:
        bounded = before + (values - before).clamp(-clip, clip)
        errors = torch.maximum(errors, (bounded - returns).square())
    return 0.5 * torch.where(mask, errors, torch.zeros_like(errors)).sum()


def preference_loss(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, beta: float
) -> Tensor:
    """-log sigma(beta (log-ratio of chosen - log-ratio of rejected)) of each pair (Rafailov et al. 2023).

    Args:
        chosen: (pairs,) summed log-probability of the chosen answers under the policy.
        rejected: The same of the rejected ones.
        chosen_reference: Of the chosen ones under the reference.
        rejected_reference: Of the rejected ones under the reference.
        beta: Weight of the divergence.
    """
    margin = (chosen - chosen_reference) - (rejected - rejected_reference)
    return -torch.nn.functional.logsigmoid(beta * margin)


@dataclass
class KLControl:
    """The weight of the divergence; adaptive when it has a target (Ziegler et al. 2019, sec. 2.2).

    Args:
        beta: Its value now.
        target: Divergence per answer in nats to hold; ``None`` keeps ``beta``.
        horizon: Answers over which an error is made up.
    """

    beta: float
    target: float | None = None
    horizon: float = 10_000.0

    def update(self, divergence: float, answers: int) -> None:
        """Raise beta where the divergence is above the target, lower it where it is below."""
        if self.target is not None:
            error = min(max(divergence / self.target - 1.0, -0.2), 0.2)
            self.beta *= 1.0 + error * answers / self.horizon


@dataclass(frozen=True)
class Frontier:
    """The best that reweighting the reference's own answers by exp(score / beta) reaches.

    Args:
        beta: Weights of the divergence.
        reward: Mean score at each.
        divergence: KL from the reference at each, in nats per answer.
        effective: Effective number of answers per prompt at each; the estimate is poor below 50.
        plain: Mean score of the reference.
    """

    beta: tuple[float, ...]
    reward: tuple[float, ...]
    divergence: tuple[float, ...]
    effective: tuple[float, ...]
    plain: float

    def share(self, reward: float, divergence: float) -> float:
        """Of the gain that is reachable at this divergence, the share that a policy has.

        NaN where the divergence is outside what the frontier covers.
        """
        pairs = sorted(zip(self.divergence, self.reward, strict=True))
        for (low, worse), (high, better) in pairwise(pairs):
            if low <= divergence <= high:
                part = 0.0 if high == low else (divergence - low) / (high - low)
                best = worse + part * (better - worse)
                return (reward - self.plain) / (best - self.plain) if best > self.plain else float("nan")
        return float("nan")


def reweighted(scores: Tensor, betas: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Reward, divergence and effective number of the reference's answers, reweighted by exp(score / beta).

    Args:
        scores: (prompts, answers) scores of the reference's answers.
        betas: Weights of the divergence.

    Returns:
        Three times (prompts, betas).
    """
    scores = scores.double()
    count = scores.shape[1]
    weights = (scores[:, None] / torch.tensor(betas, dtype=torch.float64)[:, None]).softmax(2)
    reward = (weights * scores[:, None]).sum(2)
    divergence = (weights * (weights * count).clamp(min=1e-300).log()).sum(2)
    return reward, divergence, 1 / weights.square().sum(2)


def frontier(scores: Tensor, betas: tuple[float, ...]) -> Frontier:
    """The frontier of reward and divergence, as means over prompts of what :func:`reweighted` gives.

    Args:
        scores: (prompts, answers) scores of the reference's answers.
        betas: Weights of the divergence.
    """
    reward, divergence, effective = (tuple(part.mean(0).tolist()) for part in reweighted(scores, betas))
    return Frontier(betas, reward, divergence, effective, float(scores.double().mean()))
