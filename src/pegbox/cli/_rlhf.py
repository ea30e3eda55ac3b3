import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.cli._options import check_writable, command, say
from pegbox.cli._rlhf_plan import (
    LAST,
    REWARD,
    SFT,
    SHARED,
    check_plan,
    check_readable,
    in_section,
    read_plan,
    settings_of,
    stages_of,
)
from pegbox.errors import InputError, PegboxError, UsageError
from pegbox.training import resumed_by

if TYPE_CHECKING:
    from pegbox.comparison import PolicyRun
    from pegbox.methods import LoRA

PLAN, FORMAT = "plan.json", "pegbox.rlhf-plan/1"


def rlhf(plan: Path, *, out: Path | None = None, overwrite: bool = False) -> None:
    """Run all stages of RLHF from one file: tune, learn a reward, tune the policy, judge it and report.

    The same command goes on where it was stopped.

    Args:
        plan: YAML file with the sections sft, reward and ppo or dpo, each with the options of that verb
            (see pegbox sft --help), or, of the first two, the folder of a model that is there, of reward also
            module:function or a .json file of rules; and for all of them model, chat, seed and the like, out,
            gold, held, forgetting, frontier_draws.
        out: Folder for everything; by default what the file says, else the file's name without its ending.
        overwrite: Replace another run in the output folder; stages whose part of the plan is the same stay.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "all stages in one run are for one process",
            where="torchrun pegbox rlhf",
            expected="pegbox rlhf, or its stages under torchrun one by one",
            fix="run pegbox sft, pegbox reward and pegbox ppo under torchrun",
        )
    given = read_plan(plan)
    named = given.pop("out", None)
    if named is not None and not isinstance(named, str):
        raise InputError(f"out is {named!r}", where=str(plan), expected="the name of a folder")
    ends = plan.suffix.lower() in (".yaml", ".yml", ".json")
    place = Path(out or named or (plan.stem if ends else f"{plan.name}-run"))
    check_plan(given, plan)
    stages = stages_of(given, place, plan)
    settings = settings_of(given, plan)
    from pegbox.comparison import PAGE  # heavy: only once the plan holds

    check_writable(place / PAGE, "--out")
    check_readable(given)
    if _finished(place, given, overwrite):
        say(f"{place} holds this run, finished: {place / PAGE}")
        return
    try:
        with resumed_by(""):
            run = _recorded(place)
            if run is None:
                for name, options in stages.items():
                    _stage(name, options, place)
                run = _last(given, settings, place)
            _report(run, place)
    except KeyboardInterrupt as stopped:
        say(f"interrupted: the same command goes on from what is finished in {place}")
        stopped.add_note("told")
        raise


def _finished(place: Path, plan: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds this very run, finished; after it the plan lies there.

    Raises:
        UsageError: When another run, or anything else, lies there.
    """
    from pegbox._atomic import write_text
    from pegbox.comparison import PAGE

    path, wanted = place / PLAN, {"format": FORMAT, **json.loads(json.dumps(plan, default=str))}
    kept = _kept(path)
    if kept is None and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(
            "the output folder exists and holds something else",
            where=str(place),
            expected="a new folder",
            fix="name another with --out",
        )
    if kept is not None:
        changed = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
        if not changed and not overwrite:
            return (place / PAGE).exists()
        begun = [path for path in place.iterdir() if path.name != PLAN]
        if not overwrite and begun:
            raise UsageError(
                f"the folder holds a run of another plan: {', '.join(changed)}",
                where=str(place),
                expected="the same plan, or another folder",
                fix="name another with --out, or give --overwrite",
            )
        _clear(place, plan, changed)
    write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return False


def _kept(path: Path) -> dict[str, Any] | None:
    """The plan that lies in a folder, where it is one of ours."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _clear(place: Path, plan: Mapping[str, Any], changed: list[str]) -> None:
    """Remove what another plan made there, but for stages whose part of the plan is the same.

    Raises:
        UsageError: When the plan itself begins from one of these.
    """
    import shutil

    from pegbox.comparison import PAGE, PICTURES, POLICY, POLICY_RUN, RECORD
    from pegbox.rlhf import METRICS

    for name in (SFT, REWARD):
        given = plan[name]
        if (
            isinstance(given, str)
            and Path(given).is_dir()
            and place.resolve() in Path(given).resolve().parents
        ):
            raise UsageError(
                f"the plan begins from {given}, which lies in the folder that is to be replaced",
                where=f"--out {place}",
                expected="another folder",
                fix="name another with --out",
            )
    shared = not changed or any(name in changed for name in (*SHARED, "trust_remote_code"))
    stages = [name for name in (SFT, REWARD) if shared or name in changed]
    for made in (*stages, *(f"{name}-run" for name in stages), POLICY, POLICY_RUN, PICTURES):
        shutil.rmtree(place / made, ignore_errors=True)
    for made in (PAGE, RECORD, METRICS):
        (place / made).unlink(missing_ok=True)


def _stage(name: str, options: dict[str, Any], place: Path) -> None:
    """Tune one stage, unless it lies there whole already."""
    from pegbox.cli._reward import reward
    from pegbox.cli._sft import sft
    from pegbox.tuning import clear_run_folder

    if (place / name / "pegbox.json").exists():
        clear_run_folder(place / f"{name}-run")
        say(f"{name}: done, in {place / name}")
        return
    verbs: dict[str, Callable[..., None]] = {SFT: sft, REWARD: reward}
    say(f"{name}: pegbox {name} {options['data']}")
    try:
        verbs[name](**options, resume=(place / f"{name}-run").exists())
    except PegboxError as error:
        raise in_section(error, name) from None


def _last(plan: Mapping[str, Any], settings: tuple[Any, "LoRA"], place: Path) -> "PolicyRun":
    """Tune the policy and judge it."""
    from pegbox.comparison import rlhf
    from pegbox.models import quiet_libraries

    name = next(one for one in LAST if one in plan)
    given = plan[name]
    quiet_libraries()
    folders = [plan[one] if isinstance(plan[one], str) else place / one for one in (SFT, REWARD)]
    say(f"{name}: the policy, from {folders[0]}")
    where = {key: plan[key] for key in ("device", "dtype", "trust_remote_code") if key in plan}
    return rlhf(
        folders[0],
        folders[1],
        given["data"],
        folder=place,
        settings=settings[0],
        held=given.get("held", plan.get("held")),
        gold=given.get("gold", plan.get("gold")),
        forgetting=plan.get("forgetting"),
        frontier_draws=plan.get("frontier_draws", 256),
        adapter=settings[1],
        configuration=plan,
        command=command(),
        overwrite=True,
        say=say,
        **where,
    )


def _report(run: "PolicyRun", place: Path) -> None:
    """Write the report, and tell what it comes to."""
    from rich.console import Console

    from pegbox.comparison import POLICY
    from pegbox.reports import scores_panel, write_rlhf_report

    page = write_rlhf_report(run, place)
    console = Console()
    console.print(scores_panel(run.scores, title=f"{run.algorithm} on {run.base.name}"))
    for sentence in run.verdict:
        console.print(sentence, markup=False, highlight=False)
    say(f"the report is {page}; to use the policy: pegbox predict {place / POLICY} FILE")


def _recorded(place: Path) -> "PolicyRun | None":
    """The record of a policy that was tuned and judged, where it lies there."""
    from pegbox.comparison import RECORD, PolicyRun

    path = place / RECORD
    return PolicyRun.from_json(json.loads(path.read_text("utf-8"))) if path.exists() else None
