"""The plan of an RLHF run: read, and checked whole before anything is tuned."""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.errors import InputError, PegboxError, is_whole, nearest

if TYPE_CHECKING:
    from pegbox.methods import LoRA

SFT, REWARD = "sft", "reward"
# What all stages have in common, where they take it; a stage's own value wins.
SHARED = ("model", "chat", "system", "device", "dtype", "max_length", "quantise", "revision", "seed")
LAST = ("ppo", "dpo")
JUDGING = ("gold", "held", "forgetting", "frontier_draws")
TOP = ("out", *SHARED, "trust_remote_code", SFT, REWARD, *LAST, *JUDGING)
# Names of an option of a stage, where the plan as a whole has another.
_MEANT = {"draws": "write frontier_draws for the frontier, or rl: {draws: 4} in the section ppo for RLOO"}
# What a stage may not say for itself: one run has one place and goes on by itself.
OURS = ("out", "resume", "overwrite", "sft", "reward", "seeds")
# What the last stage takes from the folder of the first, or from the whole plan.
ELSEWHERE = ("model", "device", "valid", "text", "dialogue", "on_bad_rows", "too_long")


def read_plan(config: Path) -> dict[str, Any]:
    """The file as a mapping."""
    import yaml

    try:
        found = yaml.safe_load(config.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(config), fix="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
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


def check_plan(plan: Mapping[str, Any], config: Path) -> None:
    """Every key is known, and every section is there once."""
    draws = plan.get("frontier_draws", 0)
    if not is_whole(draws, 0):
        raise InputError(
            f"frontier_draws is {draws!r}",
            where=str(config),
            expected="a whole number from 0",
            fix="leave it out for 256, or write 0 to measure no frontier",
        )
    for name in plan:
        if name not in TOP:
            raise InputError(
                f"there is no key {name!r} of an RLHF run",
                where=str(config),
                expected=", ".join(TOP),
                fix=_MEANT.get(name) or nearest(str(name), TOP) or "remove it",
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


def stages_of(plan: Mapping[str, Any], place: Path, config: Path) -> dict[str, dict[str, Any]]:
    """Options of the stages that are to be tuned here, not given by a folder or a function."""
    from pegbox.cli._reward import reward
    from pegbox.cli._sft import sft
    from pegbox.cli._tuning import training_for
    from pegbox.methods import build

    verbs: dict[str, Callable[..., None]] = {SFT: sft, REWARD: reward}
    found = {}
    for name, verb in verbs.items():
        if isinstance(plan[name], str):
            continue
        found[name] = _options(name, plan[name], plan, verb, config) | {"out": place / name}
        try:
            method = build(found[name]["method"], found[name]["options"])
            training_for(method, found[name]["training"], found[name]["seed"])
        except PegboxError as error:
            raise in_section(error, name) from None
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


def settings_of(plan: Mapping[str, Any], config: Path) -> tuple[Any, "LoRA"]:
    """Settings of the last stage and the adapter of its policy, checked before anything is tuned."""
    from pegbox.cli._align import alignment_settings, dpo, ppo
    from pegbox.methods import LoRA, build
    from pegbox.tuning import DPO, Training

    name = next(one for one in LAST if one in plan)
    verbs: dict[str, Callable[..., None]] = {"ppo": ppo, "dpo": dpo}
    section = plan[name]
    most = section.get("max_tokens", 64) if name == "dpo" and isinstance(section, Mapping) else 64
    if not is_whole(most, 1):
        raise InputError(f"max_tokens is {most!r}", where=str(config), expected="a whole number from 1")
    if name == "dpo" and isinstance(section, Mapping):
        section = {key: value for key, value in section.items() if key != "max_tokens"}
    given = _options(name, section, plan, verbs[name], config)
    adapter = build("lora", given["options"])
    assert isinstance(adapter, LoRA)
    try:
        if name == "dpo":
            how = DPO(
                given["beta"], Training.of(given["training"] or {}), max_tokens=most, seed=given["seed"]
            )
            how.settings(adapter)
            return how, adapter
        return alignment_settings(given["algorithm"], given["seed"], given["rl"]), adapter
    except PegboxError as error:
        raise in_section(error, f"{name} of {config}") from None


def check_readable(plan: Mapping[str, Any]) -> None:
    """Whatever the plan names is there, before hours are spent on the stages before it."""
    from pegbox.data import read
    from pegbox.models import find_version
    from pegbox.tuning import check_reward

    find_version(plan.get("model", "etude"), plan.get("revision"))
    for name in (SFT, REWARD):
        given = plan[name]
        if isinstance(given, str) and (name == SFT or Path(given).is_dir()):
            if not (Path(given) / "pegbox.json").is_file():
                raise InputError(
                    "this is no folder of a tuned model",
                    where=f"section {name}, {given}",
                    fix="check the path",
                )
            _check_task(name, Path(given))
        elif isinstance(given, str):
            try:
                check_reward(given)
            except PegboxError as error:
                error.where = f"section {name}, {given}"
                raise
    last = next(plan[name] for name in LAST if name in plan)
    gold = last.get("gold", plan.get("gold"))
    if gold is not None and not Path(str(gold)).is_dir():
        check_reward(str(gold), "gold")
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
                        raise in_section(error, name) from None


def _check_task(name: str, folder: Path) -> None:
    """A tuned model of the task that a section is for."""
    try:
        task = json.loads((folder / "task.json").read_text("utf-8")).get("task")
    except (OSError, ValueError, AttributeError):
        return  # told when it is loaded
    wanted, verb = {SFT: ("generate", "pegbox sft"), REWARD: ("prefer", "pegbox reward")}[name]
    if task != wanted:
        raise InputError(
            f"this model answers a {task} task",
            where=f"section {name}, {folder}",
            expected=f"a folder that {verb} wrote",
            fix="check the path",
        )


def in_section(error: PegboxError, name: str) -> PegboxError:
    error.where = f"section {name}, {error.where}" if error.where else f"section {name}"
    return error
