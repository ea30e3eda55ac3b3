"""The page of an RLHF run: is the policy better, how far did it go, did it overdo it, what did it forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox import _atomic
from pegbox.reports import _format
from pegbox.reports._course import course_diagram, course_figure, held_diagram, held_figure
from pegbox.reports._diagram import reliability_diagram, reliability_figure
from pegbox.reports._frontier import frontier_diagram, frontier_figure
from pegbox.reports._margins import margins_diagram, margins_figure
from pegbox.reports._names import NAMES
from pegbox.reports._page._frame import Frame, framed, report_folder, write_pictures
from pegbox.reports._page._inline import inline
from pegbox.reports._page._pictures import Picture
from pegbox.reports._page._rows import FIRST, MOST, Group, ShownRow
from pegbox.reports._page._rows import shown_text as text
from pegbox.reports._page._side import general_caption
from pegbox.reports._page._table import Entry, Head, Line, Table, bare_p, change, entry
from pegbox.reports._page._view import flat, in_bits, ran_on, setting
from pegbox.reports._policy_panel import TITLES, reached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pegbox.comparison import PolicyRun

SECTIONS = {
    "judge": "Before and after",
    "frontier": "Reward and divergence",
    "overdone": "Over-optimisation",
    "answers": "Answers side by side",
    "reward": "The reward model",
    "course": "The course",
    "forgetting": "Forgetting",
    "repeat": "How to repeat it",
}


@dataclass(frozen=True)
class RLHFView:
    """The parts of the page that take some work; the rest is read from the run itself."""

    tables: Mapping[str, Table | None]
    frontier: Picture | None
    reached: str
    held: Picture | None
    measured: int
    overdone: str
    course: Picture | None
    health: tuple[Picture, ...]
    no_health: str
    answers: Group
    settings: tuple[tuple[str, str], ...]
    configuration: tuple[tuple[str, str], ...]
    made_with: tuple[tuple[str, str], ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them."""
        return tuple(one for one in (self.frontier, self.held, self.course, *self.health) if one is not None)


def write_rlhf_report(run: PolicyRun, folder: str | Path) -> Path:
    """Write the report of an RLHF run: one page that needs nothing else, and its pictures as files.

    ``report.html`` opens offline, in light and dark, and prints; the folder ``pictures`` beside it has every
    picture as ``.svg`` and ``.png`` and is replaced as a whole. The same run gives the same bytes with the
    same libraries.

    Args:
        run: What `pegbox.comparison.rlhf` made.
        folder: Where to write, usually the run's own folder; made if need be.

    Returns:
        The page.

    Raises:
        UsageError: The folder is a file.
    """
    from pegbox.comparison import PAGE, PICTURES

    place = report_folder(folder)
    found = _view(run)
    write_pictures(found.pictures, place / PICTURES)
    frame = Frame(
        kind="RLHF run",
        title=f"{run.algorithm.upper()} on {run.base.name}",
        verdict=run.verdict,
        facts=tuple(_facts(run)),
        sections=tuple(SECTIONS.items()),
        version=run.versions.get("pegbox", ""),
        beside="Every number is also in rlhf.json, the pictures in pictures/, and the policy in policy/, "
        "beside this page.",
        folder="rlhf/",
    )
    return _atomic.write_text(place / PAGE, framed(frame, run=run, view=found))


def _view(run: PolicyRun) -> RLHFView:
    health = tuple(_health(run))
    return RLHFView(
        tables={
            "judge": _judge(run),
            "reward": _reward(run),
            "baselines": _baselines(run),
            "forgetting": _forgetting(run),
            "stages": _stages(run),
        },
        frontier=_frontier(run),
        reached="" if run.scores.reach is None else _sentence(reached(run.scores.reach)),
        held=_held(run),
        measured=sum("held_reward" in one for one in run.history),
        overdone=run.verdict[-1] if run.verdict else "",
        course=_course(run),
        health=health,
        no_health=_no_health(run),
        answers=_answers(run),
        settings=tuple(flat(run.settings)),
        configuration=tuple(flat(run.configuration)),
        made_with=(*ran_on(run), *run.versions.items()),
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _facts(run: PolicyRun) -> Iterator[tuple[str, str]]:
    base = run.base
    yield "Algorithm", run.algorithm.upper()
    if run.algorithm != "dpo":
        yield "Rewarded by", run.reward
    yield "Judged by", run.reward if run.gold is None else f"{run.gold} (gold), and {run.reward}"
    yield "Judged on", f"{run.scores.rows:,} prompts"
    yield "Base", f"{base.name}, {base.parameters:,} parameters{in_bits(base)}"
    yield "Last stage", _format.duration(run.seconds)
    yield "Finished", run.date or _format.NONE


def _judge(run: PolicyRun) -> Table:
    """Rewards, wins, divergence and lengths before and after."""
    heads = ("", "before", "after", "change", "p", "wins")
    lines = [
        Line(
            Entry(TITLES.get(name, name)),
            (
                entry(part.before),
                entry(part.after),
                change(part.difference),
                Entry(bare_p(part.p)),
                entry(part.wins),
            ),
        )
        for name, part in run.scores.rewards.items()
    ]
    none = Entry(_format.NONE)
    for name, pair in (("tokens per answer", run.scores.lengths), ("answers that end", run.scores.ended)):
        lines.append(Line(Entry(name), (entry(pair[0]), entry(pair[1]), none, none, none)))
    spent = entry(run.scores.divergence)
    lines.append(Line(Entry("divergence", "nats per answer"), (Entry("0"), spent, none, none, none)))
    caption = f"{run.scores.rows:,} prompts, with 95 % intervals over them"
    return _table("judge-table", caption, heads, lines)


def _reward(run: PolicyRun) -> Table | None:
    scores = run.reward_scores
    if scores is None:
        return None
    lines = [
        Line(Entry(NAMES.get(name, name.replace("_", " "))), (entry(one),))
        for name, one in scores.metrics.items()
    ]
    return _table("reward-table", f"{scores.rows:,} pairs, with 95 % intervals", ("", "value"), lines)


def _baselines(run: PolicyRun) -> Table | None:
    scores = run.reward_scores
    if scores is None:
        return None
    lines = [
        Line(Entry(name), (Entry(f"{part.b:.3f}"), change(part.difference), Entry(bare_p(part.p))))
        for name, part in scores.baselines.items()
    ]
    heads = ("against", "accuracy", "the reward model's less this", "p")
    return _table("baselines", "Simple baselines on the same pairs", heads, lines)


def _forgetting(run: PolicyRun) -> Table | None:
    if not run.forgetting:
        return None
    lines = [
        Line(
            Entry({"sft": "before (SFT)"}.get(name, name)),
            (entry(part.before), entry(part.after), change(part.change)),
        )
        for name, part in run.forgetting.items()
    ]
    caption = general_caption(next(iter(run.forgetting.values())))
    return _table("forgetting-table", caption, ("model", "base", "tuned", "change"), lines)


def _stages(run: PolicyRun) -> Table:
    lines = [
        Line(
            Entry(stage.name, ", ".join(f"{name} {setting(value)}" for name, value in stage.options.items())),
            (
                Entry(stage.method),
                Entry(stage.source or _format.NONE),
                Entry(_format.count(stage.rows)),
                Entry(_format.count(stage.parameters)),
                Entry(_format.duration(stage.seconds)),
            ),
        )
        for stage in run.stages
    ]
    heads = ("stage", "method", "rows of", "rows", "parameters", "time")
    return _table("stages", "The stages, all on one base", heads, lines, words=("method", "rows of"))


def _table(
    name: str, caption: str, heads: tuple[str, ...], lines: list[Line], words: tuple[str, ...] = ()
) -> Table:
    shown = tuple(Head(head, words=not place or head in words) for place, head in enumerate(heads))
    return Table(name, caption, shown, tuple(lines))


def _picture(
    name: str,
    title: str,
    caption: str,
    words: str,
    figure: Figure,
    write: Callable[[Path], Path],
) -> Picture:
    return Picture(name, title, caption, inline(figure, name, title, words), write)


def _frontier(run: PolicyRun) -> Picture | None:
    reach = run.scores.reach
    if reach is None:
        return None
    title = "Reward against divergence"
    caption = (
        f"The line is what reweighting {reach.draws:,} answers of the model before to each of "
        f"{reach.prompts:,} prompts reaches at each divergence, without any training; dashed where fewer "
        "than 50 of them have weight. The diamond is the policy on the same prompts, with 95 % intervals; "
        "the dots are its steps, on the prompts that it learnt on. Rewards are here as in training, less the "
        "penalty of an answer without its end, which the table above leaves out."
    )
    return _picture(
        "frontier",
        title,
        caption,
        _sentence(reached(reach)),
        frontier_figure(reach, run.history),
        lambda path: frontier_diagram(reach, path, run.history, title),
    )


def _held(run: PolicyRun) -> Picture | None:
    measured = [one for one in run.history if "held_reward" in one]
    if not measured:
        return None
    title = "Rewards on held-out prompts by step"
    before = {name: part.before.value for name, part in run.scores.rewards.items()}
    words = "; ".join(
        f"step {one['step']}: reward {one['held_reward']:+.2f}"
        + (f", gold {one['held_gold']:+.2f}" if "held_gold" in one else "")
        for one in measured
    )
    caption = (
        "Over-optimisation is where the reward that is tuned by goes on rising and a judge that nothing is "
        "tuned by falls. Bars are two standard errors; the dashed line is the model before."
    )
    return _picture(
        "held-out",
        title,
        caption,
        f"{words}.",
        held_figure(run.history, before),
        lambda path: held_diagram(run.history, path, before, title),
    )


def _course(run: PolicyRun) -> Picture | None:
    if not run.history:
        return None
    first, last, title = run.history[0], run.history[-1], "What each step measured"
    words = (
        f"From step {first['step']} to {last['step']}: reward {first['reward']:+.2f} to "
        f"{last['reward']:+.2f}, divergence {first['kl']:.2f} to {last['kl']:.2f} nats, entropy "
        f"{first['entropy']:.2f} to {last['entropy']:.2f}, tokens per answer {first['length']:.0f} to "
        f"{last['length']:.0f}."
    )
    caption = (
        "On the answers that were learnt from, unless a line says otherwise; bands are two standard errors."
    )
    return _picture(
        "course",
        title,
        caption,
        words,
        course_figure(run.history),
        lambda path: course_diagram(run.history, path, title),
    )


def _health(run: PolicyRun) -> Iterator[Picture]:
    scores = run.reward_scores
    if scores is None:
        return
    ties = scores.counts["ties"]
    right = round(scores.metrics["accuracy"].value * scores.rows - ties / 2)
    yield _picture(
        "margins",
        "Margins",
        f"Margins\nChosen less rejected reward; above 0 in {right:,} of {scores.rows:,} pairs, 0 in {ties:,}",
        f"{right} of {scores.rows} pairs have the chosen answer ahead.",
        margins_figure(scores.margins),
        lambda path: margins_diagram(scores.margins, path),
    )
    ece = entry(scores.metrics["ece"])
    yield _picture(
        "reward-reliability",
        "Reliability",
        f"Reliability\nOf the probability that an answer is better; ECE {ece.text} {ece.small}",
        f"ECE {scores.metrics['ece']}.",
        reliability_figure(scores, small=True),
        lambda path: reliability_diagram(scores, path),
    )


def _no_health(run: PolicyRun) -> str:
    if any(stage.name == "reward" for stage in run.stages):
        return "The reward model was saved without scores on pairs: pegbox evaluate measures them."
    return f"The reward is {run.reward}, which is no tuned model."


def _answers(run: PolicyRun) -> Group:
    names = tuple(run.scores.rewards)
    heads = [Head("before", words=True), *(Head(f"{name} of it") for name in names)]
    heads += [Head("after", words=True), *(Head(f"{name} of it") for name in names)]
    rows = [
        ShownRow(
            _format.count(number),
            (text(one.prompt),),
            (
                one.before or "(nothing)",
                *(f"{one.rewards_before[name]:+.2f}" for name in names),
                one.after or "(nothing)",
                *(f"{one.rewards_after[name]:+.2f}" for name in names),
            ),
        )
        for number, one in enumerate(run.answers, 1)
    ]
    return Group(
        "answers",
        f"{len(rows):,} prompts",
        tuple(heads),
        tuple(rows[:FIRST]),
        tuple(rows[FIRST:MOST]),
        max(len(rows) - MOST, 0),
    )
