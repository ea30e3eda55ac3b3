from typing import TYPE_CHECKING

from pegbox.evaluation import PolicyScores, Reach
from pegbox.reports import _format
from pegbox.reports._cell import plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

TITLES = {"reward": "reward, in its own sd", "gold": "gold reward"}


def policy_panel(scores: PolicyScores, title: str = "") -> "RenderableType":
    """Rich view of a policy beside the model it was tuned from.

    Args:
        scores: What `pegbox.evaluation.score_policy` measured.
        title: Shown on the panel's edge.
    """
    from rich.console import Group
    from rich.panel import Panel

    parts: list[RenderableType] = [_changes(scores), "", *map(plain, facts(scores))]
    if scores.reach is not None:
        parts += ["", plain(reached(scores.reach))]
    return Panel(Group(*parts), title=plain(title) if title else None, title_align="left", expand=False)


def _changes(scores: PolicyScores) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, part in scores.rewards.items():
        table.add_row(
            TITLES.get(name, name), f"{_format.value(part.before)} before, {_format.value(part.after)} after"
        )
        table.add_row("  change", plain(f"{_format.signed(part.difference)}, {_format.p_value(part.p)}"))
        table.add_row("  wins, ties half", plain(_format.interval(part.wins)))
    old, new = scores.lengths
    table.add_row("tokens per answer", f"{old.value:.1f} before, {new.value:.1f} after")
    return table


def facts(scores: PolicyScores) -> list[str]:
    """Divergence and ends of answers, in words."""
    old, new = scores.ended
    prompts = "1 held-out prompt" if scores.rows == 1 else f"{scores.rows:,} held-out prompts"
    return [
        f"{prompts}, with answers of each model drawn to each",
        f"divergence from the model before: {_format.interval(scores.divergence)} nats per answer",
        f"answers that end: {100 * old.value:.0f} % before, {100 * new.value:.0f} % after",
    ]


def reached(reach: Reach) -> str:
    """The share of what is reachable, in words."""
    where = f"on {reach.prompts:,} of them, at {_format.interval(reach.divergence)} nats,"
    if reach.divergence.low <= 0:
        return f"{where} the policy is too close to the model before to be compared with what can be reached"
    if reach.share.value != reach.share.value:
        return (
            f"{where} the policy lies outside what reweighting {reach.draws:,} answers per prompt of the "
            "model before can show, so that its share of the reachable gain is unknown"
        )
    told = f"{where} it has, of the reachable gain, the share {_format.interval(reach.share)}"
    if reach.sure:
        return told
    return f"{told}; only {reach.answers:.0f} answers per prompt have weight there: a poor estimate"
