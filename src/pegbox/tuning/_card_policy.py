"""The part of a model card that says how a policy was tuned after its first stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pegbox.evaluation import Estimate

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


def is_policy(tuned: Tuned) -> list[str]:
    """The keys of its details, ``alignment`` and ``dpo``, where it is a policy; the last stage first."""
    return [name for name in reversed(list(tuned.details)) if name in ("alignment", "dpo")]


def policy(tuned: Tuned) -> list[str]:
    """What it was tuned by; nothing for other models."""
    stages = {"alignment": _aligned, "dpo": _direct}
    lines = [line for name in is_policy(tuned) for line in stages[name](tuned.details[name])]
    if not lines:
        return []
    first = "It started from a tuned model, of whose rows the next part tells, and was held close to it."
    return ["\n".join(["## How the policy was tuned", "", first, "", *lines])]


def _aligned(details: dict[str, Any]) -> list[str]:
    settings, last = details["settings"], details["last"]
    lines = [
        f"- {settings['algorithm'].upper()}: {settings['steps']:,} steps of {settings['batch_size']:,} "
        f"answers of at most {settings['max_tokens']:,} tokens; beta {last['beta']:.3g} at the end.",
        f"- Rewarded by `{details['reward']}`; divergence {last['kl']:.2f} nats per answer in the last step.",
    ]
    if details["warnings"]:
        told = ", ".join(f"{name} (step {step})" for name, step in details["warnings"].items())
        lines.append(f"- Warnings that were given: {told}.")
    return lines


def _direct(details: dict[str, Any]) -> list[str]:
    lines = [f"- DPO on {details['pairs']:,} pairs of answers, beta {details['beta']:g}."]
    if "favoured" in details:
        share = Estimate(**details["favoured"])
        lines.append(
            "- Of the pairs by which training was stopped it favours the chosen answer more than the model "
            f"before it did in a share of {share} (chance 0.5)."
        )
    return lines
