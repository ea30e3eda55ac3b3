"""What an RLHF run comes to, in sentences that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pegbox.evaluation import Reach, RewardChange

if TYPE_CHECKING:
    from pegbox.comparison._policy_run import PolicyRun

_ALPHA = 0.05


def verdict(run: PolicyRun) -> Iterator[str]:
    """Whether the policy is better and by which judge, how far it went, and whether it overdid it."""
    yield _better(run)
    yield _far(run)
    yield _overdone(run)


def _better(run: PolicyRun) -> str:
    scores, name = run.scores, run.algorithm.upper()
    told = run.scores.rewards[run.judge]
    called = "gold reward" if run.judge == "gold" else "reward"
    where = f"on {scores.rows:,} prompts that nothing was learnt on"
    if told.p >= _ALPHA:
        return (
            f"{where[0].upper()}{where[1:]} the {called} cannot tell the {name} policy from the model before "
            f"it: {_moved(told)}."
        )
    up = told.difference.value > 0
    return (
        f"{name} {'raised' if up else 'lowered'} the {called} {where}: {_moved(told)}; its answer has the "
        f"higher one in {_percent(told.wins.value)} [{_percent(told.wins.low)}, {_percent(told.wins.high)}] "
        "of cases, a tie counted half."
    )


def _moved(change: RewardChange) -> str:
    gap, p = change.difference, change.p
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return (
        f"{change.before.value:+.3f} before, {change.after.value:+.3f} after, a change of {gap.value:+.3f} "
        f"[{gap.low:+.3f}, {gap.high:+.3f}], {said}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _far(run: PolicyRun) -> str:
    spent = run.scores.divergence
    told = f"It lies {spent.value:.2f} [{spent.low:.2f}, {spent.high:.2f}] nats per answer from that model"
    reach = run.scores.reach
    if reach is None:
        return f"{told}; what can be reached there was not measured."
    return f"{told}{_share(reach)}."


def _share(reach: Reach) -> str:
    if reach.share.value != reach.share.value:
        return ", outside what reweighting that model's own answers can show"
    share = f"{reach.share.value:.2f} [{reach.share.low:.2f}, {reach.share.high:.2f}]"
    told = (
        f" and has, of the reward that reweighting that model's own answers reaches there, the share {share}"
    )
    if reach.sure:
        return told
    return f"{told} (a poor estimate: only {reach.answers:.0f} answers per prompt have weight)"


def _overdone(run: PolicyRun) -> str:
    found = [line for line in run.warnings if "over-optimisation" in line]
    if found:
        return f"Warned {found[0]}."
    learned = run.scores.rewards["reward"]
    if run.judge == "gold":
        gold = run.scores.rewards["gold"]
        if gold.difference.high < 0 < learned.difference.low:
            return "The reward that it was tuned by rose while the gold reward fell: it is over-optimised."
        return "Nothing shows over-optimisation: the gold reward did not fall while the learned one rose."
    return (
        "The only judge is the reward that it was tuned by, which it may have learnt to please: a second one "
        "(gold) or people can tell."
    )
