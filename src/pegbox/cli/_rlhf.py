import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.cli._options import check_writable, command, say
from pegbox.errors import InputError, PegboxError, UsageError, nearest

if TYPE_CHECKING:
    from pegbox.comparison import PolicyRun
    from pegbox.methods import LoRA

PLAN, FORMAT = "plan.json", "pegbox.rlhf-plan/1"
SFT, REWARD = "sft", "reward"
# What all stages have in common, where they take it; a stage's own value wins.
SHARED = ("model", "chat", "system", "device", "dtype", "max_length", "quantise", "revision", "seed")
LAST = ("ppo", "dpo")
TOP = ("out", *SHARED, "trust_remote_code", SFT, REWARD, *LAST, "gold", "held", "forgetting", "draws")
# What a stage may not say for itself: one run has one place and goes on by itself.
OURS = ("out", "resume", "overwrite", "sft", "reward", "seeds")
# What the last stage takes from the folder of the first, or from the whole plan.
ELSEWHERE = ("model", "device", "valid", "dialogue", "too_long")


def rlhf(plan: Path, *, out: Path | None = None, overwrite: bool = False) -> None:
    """Run all stages of RLHF from one file: tune, learn a reward, tune the policy, judge it and report.

    The same command goes on where it was stopped.

    Args:
        plan: YAML file with the sections sft, reward and ppo or dpo, each with the options of that verb
            (see pegbox sft --help), or, of the first two, the folder of a model that is there; and for all of
            them model, chat, seed and the like, out, gold, held, forgetting, draws.
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
    given = _read(plan)
    named = given.pop("out", None)
    if named is not None and not isinstance(named, str):
        raise InputError(f"out is {named!r}", where=str(plan), expected="the name of a folder")
    ends = plan.suffix.lower() in (".yaml", ".yml", ".json")
    place = Path(out or named or (plan.stem if ends else f"{plan.name}-run"))
    _check(given, plan)
    stages = _stages(given, place, plan)
    settings = _settings(given, plan)
    check_writable(place / "report.html", "--out")
    _readable(given)
    if _finished(place, given, overwrite):
        say(f"{place} holds this run, finished: {place / 'report.html'}")
        return
    if not (place / "rlhf.json").exists():
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
    draws = plan.get("draws", 0)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
        raise InputError(f"draws is {draws!r}", where=str(config), expected="a whole number from 0")
    for name in plan:
        if name not in TOP:
            raise InputError(
                f"there is no key {name!r} of an RLHF run",
                where=str(config),
                expected=", ".join(TOP),
                fix=nearest(str(name), TOP) or "remove it",
            )
    last = [name for name in LAST if name in plan]
    tuned = plan.get(SFT)
    if isinstance(tuned, Mapping) and tuned.get("method") == "full" and isinstance(plan.get(REWARD), Mapping):
        raise InputError(
            "a fully tuned model is a base of its own, on which this reward model would not lie",
            where=str(config),
            expected="sft by lora, or a reward by function or rules",
            fix="tune sft with method lora",
        )
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

    out = (*OURS, *(ELSEWHERE if name in LAST else ()))
    known = [one for one in inspect.signature(verb).parameters if one not in out]
    if not isinstance(given, Mapping):
        raise InputError(
            f"the section {name} is {given!r}",
            where=str(config),
            expected="options by name" + (", or a folder" if name in (SFT, REWARD) else ""),
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
    from pegbox._atomic import write_text

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
            return (place / "report.html").exists()
        if not overwrite:
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
    for made in (*stages, *(f"{name}-run" for name in stages), "policy", "policy-run", "pictures"):
        shutil.rmtree(place / made, ignore_errors=True)
    for made in ("report.html", "rlhf.json", "metrics.jsonl"):
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
        raise _in_section(error, name) from None


def _settings(plan: Mapping[str, Any], config: Path) -> tuple[Any, "LoRA"]:
    """Settings of the last stage and the adapter of its policy, checked before anything is tuned."""
    from pegbox.cli._align import dpo, ppo
    from pegbox.methods import LoRA, build
    from pegbox.rlhf import Alignment
    from pegbox.tuning import DPO, Training

    name = next(one for one in LAST if one in plan)
    verbs: dict[str, Callable[..., None]] = {"ppo": ppo, "dpo": dpo}
    section = plan[name]
    most = section.get("max_tokens", 64) if name == "dpo" and isinstance(section, Mapping) else 64
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InputError(f"max_tokens is {most!r}", where=str(config), expected="a whole number from 1")
    if name == "dpo" and isinstance(section, Mapping):
        section = {key: value for key, value in section.items() if key != "max_tokens"}
    given = _options(name, section, plan, verbs[name], config)
    adapter = build("lora", given["options"])
    assert isinstance(adapter, LoRA)
    if name == "dpo":
        training = Training.of(given["training"] or {})
        return DPO(given["beta"], training, max_tokens=most, seed=given["seed"]), adapter
    rl = {"seed": plan.get("seed", 0), **(given["rl"] or {}), "algorithm": given["algorithm"]}
    return Alignment.of(rl), adapter


def _readable(plan: Mapping[str, Any]) -> None:
    """Whatever the plan names is there, before hours are spent on the stages before it."""
    from pegbox.data import read
    from pegbox.tuning import check_reward

    for name in (SFT, REWARD):
        given = plan[name]
        if isinstance(given, str) and (name == SFT or Path(given).is_dir()):
            if not (Path(given) / "pegbox.json").is_file():
                raise InputError(
                    "this is no folder of a tuned model",
                    where=f"section {name}, {given}",
                    fix="check the path",
                )
        elif isinstance(given, str):
            check_reward(given)
    last = next(plan[name] for name in LAST if name in plan)
    gold = last.get("gold", plan.get("gold"))
    if gold is not None and not Path(str(gold)).is_dir():
        check_reward(str(gold))
    if plan.get("held"):
        read(plan["held"])
    text = plan.get("forgetting")
    if text not in (None, "auto") and not Path(str(text)).exists():
        raise InputError(
            "there is no such text", where=f"forgetting, {text}", fix="check the path, or write auto"
        )
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
    from pegbox.comparison import PolicyRun
    from pegbox.comparison import rlhf as run
    from pegbox.models import quiet_libraries
    from pegbox.reports import write_rlhf_report

    if (place / "rlhf.json").exists():
        found = PolicyRun.from_json(json.loads((place / "rlhf.json").read_text("utf-8")))
        write_rlhf_report(found, place)
        return found
    given = next(plan[one] for one in LAST if one in plan)
    quiet_libraries()
    folders = [plan[one] if isinstance(plan[one], str) else place / one for one in (SFT, REWARD)]
    where = {key: plan[key] for key in ("device", "dtype", "trust_remote_code") if key in plan}
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
