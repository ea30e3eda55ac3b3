import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.cli._options import check_writable, command, say
from pegbox.errors import InputError, PegboxError, UsageError, nearest

if TYPE_CHECKING:
    from pegbox.comparison import PolicyRun
    from pegbox.methods import LoRA

PLAN = "plan.json"
SFT, REWARD = "sft", "reward"
# What all stages have in common, where they take it; a stage's own value wins.
SHARED = ("model", "chat", "system", "device", "dtype", "max_length", "quantise", "revision", "seed")
LAST = ("ppo", "dpo")
TOP = ("out", *SHARED, "trust_remote_code", SFT, REWARD, *LAST, "gold", "held", "forgetting", "draws")
# What a stage may not say for itself: one run has one place and goes on by itself.
OURS = ("out", "resume", "overwrite", "sft", "reward", "seeds")


def rlhf(plan: Path, *, out: Path | None = None, overwrite: bool = False) -> None:
    """Run all stages of RLHF from one file: tune, learn a reward, tune the policy, judge it and report.

    The same command goes on where it was stopped.

    Args:
        plan: YAML file with the sections sft, reward and ppo or dpo, each with the options of that verb
            (see pegbox sft --help), or, of the first two, the folder of a model that is there; and for all of
            them model, chat, seed and the like, out, gold, held, forgetting, draws.
        out: Folder for everything; by default that of the file.
        overwrite: Replace another run in the output folder.
    """
    given = _read(plan)
    named = given.pop("out", None)
    place = Path(out or named or plan.with_suffix("").name)
    _check(given, plan)
    stages = _stages(given, place, plan)
    settings = _settings(given, plan)
    check_writable(place / "report.html", "--out")
    _readable(given)
    if _finished(place, given, overwrite):
        say(f"{place} holds this run, finished: {place / 'report.html'}")
        return
    for name, options in stages.items():
        _stage(name, options, place)
    _tell(_last(given, settings, place), place)


def _read(config: Path) -> dict[str, Any]:
    """The file as a mapping."""
    import yaml

    try:
        found = yaml.safe_load(config.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(config), fix="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0]
        raise InputError(
            f"this is no YAML: {told}", where=str(config), expected="sections sft, reward and ppo or dpo"
        ) from None
    if not isinstance(found, dict):
        raise InputError(
            "there are no sections in it",
            where=str(config),
            expected="sft, reward and ppo or dpo, each with its options",
            fix="see docs/rlhf.md for one to start from",
        )
    return found


def _check(plan: Mapping[str, Any], config: Path) -> None:
    """Every key is known, and every section is there once."""
    for name in plan:
        if name not in TOP:
            raise InputError(
                f"there is no key {name!r} of an RLHF run",
                where=str(config),
                expected=", ".join(TOP),
                fix=nearest(str(name), TOP) or "remove it",
            )
    last = [name for name in LAST if name in plan]
    missing = [name for name in (SFT, REWARD) if name not in plan]
    if missing or len(last) != 1:
        raise InputError(
            f"the section {missing[0]} is missing" if missing else "one of ppo and dpo tunes the policy",
            where=str(config),
            expected="sft, reward, and one of ppo and dpo",
            fix=f"add {missing[0]}" if missing else "keep one of both",
        )


def _stages(plan: Mapping[str, Any], place: Path, config: Path) -> dict[str, dict[str, Any]]:
    """Options of the stages that are to be tuned here, not given by a folder or a function."""
    from pegbox.cli._reward import reward
    from pegbox.cli._sft import sft

    verbs: dict[str, Callable[..., None]] = {SFT: sft, REWARD: reward}
    found = {}
    for name, verb in verbs.items():
        if isinstance(plan[name], str):
            continue
        found[name] = _options(name, plan[name], plan, verb, config) | {"out": place / name}
    return found


def _options(
    name: str, given: Any, plan: Mapping[str, Any], verb: Callable[..., None], config: Path
) -> dict[str, Any]:
    """A section as the verb takes it, checked as its flags are."""
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    from pegbox.cli._signature import add_function, typed

    known = [one for one in inspect.signature(verb).parameters if one not in OURS]
    if not isinstance(given, Mapping):
        raise InputError(
            f"the section {name} is {given!r}",
            where=str(config),
            expected="options by name" + (", or a folder" if name != "ppo" else ""),
            fix=f"write for example {name}: {{data: rows.jsonl}}",
        )
    for key in given:
        if key not in known:
            raise InputError(
                f"there is no option {key!r} of pegbox {name} here",
                where=f"{config}, section {name}",
                expected=", ".join(known),
                fix=nearest(str(key), known) or f"see pegbox {name} --help",
            )
    if "data" not in given:
        raise InputError(
            f"the section {name} names no data", where=str(config), expected="data: FILE", fix="add it"
        )
    shared = {key: plan[key] for key in (*SHARED, "trust_remote_code") if key in plan and key in known}
    parser = ArgumentParser(exit_on_error=False)
    add_function(parser, verb)
    filled = {key: str(one) for key, one in (("out", "out"), ("sft", "sft"), ("reward", "reward"))}
    required = {
        key: filled[key]
        for key, one in inspect.signature(verb).parameters.items()
        if key in filled and one.default is inspect.Parameter.empty
    }
    try:
        parsed = parser.parse_object({**required, **shared, **given})
    except (ArgumentError, TypeError) as error:
        told = " ".join(str(error).split())
        raise InputError(
            f"an option cannot be this: {told}",
            where=f"{config}, section {name}",
            expected=f"see pegbox {name} --help",
        ) from None
    options = typed(verb, vars(parsed.clone()))
    return {key: value for key, value in options.items() if key in known}


def _finished(place: Path, plan: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds this very run, finished; after it the plan lies there.

    Raises:
        UsageError: When another run, or anything else, lies there.
    """
    import shutil

    from pegbox._atomic import write_text

    path, wanted = place / PLAN, json.loads(json.dumps(plan, default=str))
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        if kept == wanted and not overwrite:
            return (place / "report.html").exists()
        if not overwrite:
            changed = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
            raise UsageError(
                f"the folder holds a run of another plan: {', '.join(changed)}",
                where=str(place),
                expected="the same plan, or another folder",
                fix="name another with --out, or give --overwrite",
            )
        for made in (SFT, REWARD, "policy", "policy-run", "sft-run", "reward-run", "pictures"):
            shutil.rmtree(place / made, ignore_errors=True)
        for made in ("report.html", "rlhf.json", "metrics.jsonl"):
            (place / made).unlink(missing_ok=True)
    elif place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(
            "the output folder exists and holds something else",
            where=str(place),
            expected="a new folder",
            fix="name another with --out",
        )
    write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return False


def _stage(name: str, options: dict[str, Any], place: Path) -> None:
    """Tune one stage, unless it lies there whole already."""
    from pegbox.cli._reward import reward
    from pegbox.cli._sft import sft

    if (place / name / "pegbox.json").exists():
        say(f"{name}: done, in {place / name}")
        return
    verbs: dict[str, Callable[..., None]] = {SFT: sft, REWARD: reward}
    say(f"{name}: pegbox {name} {options['data']}")
    try:
        verbs[name](**options, resume=(place / f"{name}-run").exists())
    except PegboxError as error:
        raise _in_section(error, name) from None


def _settings(plan: Mapping[str, Any], config: Path) -> tuple[Any, "LoRA"]:
    """Settings of the last stage and the adapter of its policy, checked before anything is tuned."""
    from pegbox.cli._align import dpo, ppo
    from pegbox.methods import LoRA, build
    from pegbox.rlhf import Alignment
    from pegbox.tuning import DPO, Training

    name = next(one for one in LAST if one in plan)
    verbs: dict[str, Callable[..., None]] = {"ppo": ppo, "dpo": dpo}
    given = _options(name, plan[name], plan, verbs[name], config)
    adapter = build("lora", given["options"])
    assert isinstance(adapter, LoRA)
    if name == "dpo":
        return DPO(given["beta"], Training.of(given["training"] or {}), seed=given["seed"]), adapter
    rl = {"seed": plan.get("seed", 0), **(given["rl"] or {}), "algorithm": given["algorithm"]}
    return Alignment.of(rl), adapter


def _readable(plan: Mapping[str, Any]) -> None:
    """Whatever a section names is there, before hours are spent on the sections before it."""
    from pegbox.data import read

    for name in (SFT, REWARD, *LAST):
        section = plan.get(name)
        if isinstance(section, Mapping):
            for key in ("data", "valid", "test", "held"):
                if section.get(key):
                    try:
                        read(section[key])
                    except PegboxError as error:
                        raise _in_section(error, name) from None


def _in_section(error: PegboxError, name: str) -> PegboxError:
    error.where = f"section {name}, {error.where}" if error.where else f"section {name}"
    return error


def _last(plan: Mapping[str, Any], settings: tuple[Any, "LoRA"], place: Path) -> "PolicyRun":
    """Tune the policy, judge it and write the report."""
    from pegbox.comparison import rlhf as run
    from pegbox.models import quiet_libraries
    from pegbox.reports import write_rlhf_report

    given = next(plan[one] for one in LAST if one in plan)
    quiet_libraries()
    folders = [plan[one] if isinstance(plan[one], str) else place / one for one in (SFT, REWARD)]
    where = {key: plan[key] for key in ("model", "device") if key in plan and not isinstance(plan[SFT], str)}
    found = run(
        folders[0],
        folders[1],
        given["data"],
        folder=place,
        settings=settings[0],
        held=given.get("held", plan.get("held")),
        gold=given.get("gold", plan.get("gold")),
        text=plan.get("forgetting"),
        draws=plan.get("draws", 256),
        adapter=settings[1],
        configuration=plan,
        command=command(),
        overwrite=True,
        say=say,
        **where,
    )
    write_rlhf_report(found, place)
    return found


def _tell(run: "PolicyRun", place: Path) -> None:
    from rich.console import Console

    from pegbox.reports import scores_panel

    console = Console()
    console.print(scores_panel(run.scores, title=f"{run.algorithm} on {run.base.name}"))
    for sentence in run.verdict:
        console.print(sentence, markup=False, highlight=False)
    policy = place / "policy"
    say(f"the report is {place / 'report.html'}; to use the policy: pegbox predict {policy} FILE")
