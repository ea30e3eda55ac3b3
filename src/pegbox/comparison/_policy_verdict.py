"""What an RLHF run comes to, in sentences that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pegbox.evaluation import SIGNIFICANT, Reach, RewardChange

if TYPE_CHECKING:
    from pegbox.comparison._policy_run import PolicyRun


def verdict(run: PolicyRun) -> Iterator[str]:
    """Whether the policy is better and by which judge, how far it went, whether it overdid it.

    A last sentence tells where its reward model was not seen to have learnt more than lengths of answers.
    """
    yield _better(run)
    yield _far(run)
    yield _overdone(run)
    if run.reward_scores is not None and run.reward_scores.unbeaten:
        yield f"Of the reward model: {_lowered(run.reward_scores.verdict())}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _better(run: PolicyRun) -> str:
    scores, name = run.scores, run.algorithm.upper()
    told = run.scores.rewards[run.judge]
    called = "gold reward" if run.judge == "gold" else "reward"
    where = f"on {scores.rows:,} prompts that the policy was not tuned on"
    if told.p >= SIGNIFICANT:
        return (
            f"{where[0].upper()}{where[1:]} the {called} cannot tell the {name} policy from the model before "
            f"it: {_moved(told)}."
        )
    up = told.difference.value > 0
    return (
        f"{name} {'raised' if up else 'lowered'} the {called} {where}: {_moved(told)}; its answer has the "
        f"higher one in a share of {told.wins} of cases, a tie counted half."
    )


def _moved(change: RewardChange) -> str:
    said = "p < 0.001" if change.p < 0.001 else f"p = {change.p:.3f}"
    return (
        f"{change.before.value:+.3f} before, {change.after.value:+.3f} after, a change of "
        f"{change.difference}, {said}"
    )


def _far(run: PolicyRun) -> str:
    told = f"It lies {run.scores.divergence} nats per answer from that model"
    reach = run.scores.reach
    if reach is None:
        return f"{told}; what can be reached there was not measured."
    return f"{told}; {_share(reach)}."


def _share(reach: Reach) -> str:
    if reach.divergence.low <= 0:
        return "that is too close to it to be compared with what can be reached"
    where = f"on {reach.prompts:,} of the prompts, at {reach.divergence.value:.2f} nats,"
    if reach.share.value != reach.share.value:
        return f"{where} it is outside what reweighting that model's own answers can show"
    gain = "of the gain that reweighting that model's own answers reaches"
    told = f"{where} it has, {gain}, the share {reach.share}"
    if reach.sure:
        return told
    return f"{told} (a poor estimate: only {reach.answers:.0f} answers per prompt have weight)"


def _overdone(run: PolicyRun) -> str:
    found = [line for line in run.warnings if "over-optimisation" in line]
    if found:
        return f"Warned {found[0]}."
    learned, direct = run.scores.rewards["reward"], run.algorithm == "dpo"
    if run.judge == "gold":
        gold, own = (
            run.scores.rewards["gold"],
            "The reward beside it" if direct else "The reward that it was tuned by",
        )
        if gold.difference.high < 0 < learned.difference.low:
            return f"{own} rose while the gold reward fell: it is over-optimised."
        fell = "fell" if gold.difference.high < 0 else "was not seen to fall for sure"
        return (
            f"Over-optimisation is not shown: the gold reward {fell} (a change of {gold.difference}), the "
            f"other changed by {learned.difference}."
        )
    if direct:
        return "The only judge is one reward: a second one (gold) or people can tell more."
    return (
        "The only judge is the reward that it was tuned by, which it may have learnt to please: a second one "
        "(gold) or people can tell."
    )
