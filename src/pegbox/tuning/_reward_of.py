"""What answers are rewarded by: a reward model, a Python function, or rules in a file."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.models import Base
from pegbox.rlhf import Answered, FunctionReward, Reward
from pegbox.tasks import PreferPrompt
from pegbox.training import hush
from pegbox.tuning._shapes.prefer import reward_scores
from pegbox.tuning._tuned import Tuned


@dataclass(frozen=True)
class ModelReward:
    """A reward model on the policy's base; it reads the policy's own tokens.

    Args:
        tuned: The reward model.
    """

    tuned: Tuned

    def __call__(self, rows: Answered, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:  # noqa: ARG002
        """Rewards (rows,)."""
        return reward_scores(self.tuned, rows.ids)


def reward_of(
    given: Tuned | str | Path | Callable[[str, str], float] | Reward,
    base: Base,
    chat: str | None,
    role: Literal["reward", "gold"] = "reward",
) -> tuple[Reward, Tuned | None, str]:
    """The reward, the reward model where it is one, and a name for it.

    Args:
        given: A reward model or its folder, a function of prompt and answer, ``module:function``, or a .json
            file of rules.
        base: The policy's base.
        chat: How the policy's conversations are written.
        role: Which of a policy's rewards it is, for messages.

    Raises:
        InputError: For a reward model of another base or another chat template, and a file that cannot be
            read.
        UsageError: For what is no reward.
    """
    if isinstance(given, Tuned):
        return ModelReward(_checked(given, base, chat)), given, given.base.name
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        own: Any = given
        return (own if _reads_rows(given) else FunctionReward(own, name)), None, name
    path = Path(given)
    if path.is_dir():
        tuned = Tuned.load(path, model=base, say=hush)
        return ModelReward(_checked(tuned, base, chat)), tuned, path.name
    if path.suffix == ".json":
        return FunctionReward(_rules(path), path.name), None, path.name
    return FunctionReward(_function(str(given), role), str(given)), None, str(given)


def check_reward(given: str, role: Literal["reward", "gold"] = "reward") -> None:
    """Find a function or read a file of rules, so that a mistake there is told early.

    Args:
        given: ``module:function`` or a .json file of rules.
        role: Which of a policy's rewards it is, for messages.

    Raises:
        InputError: For a file that cannot be read.
        UsageError: For what is no reward.
    """
    path = Path(given)
    if path.suffix == ".json":
        _rules(path)
    else:
        _function(given, role)


def _checked(tuned: Tuned, base: Base, chat: str | None) -> Tuned:
    prompt = tuned.prompt
    if not isinstance(prompt, PreferPrompt):
        raise UsageError(
            f"this model answers a {prompt.task.to_json()['task']} task and gives no rewards",
            where=tuned.base.name,
            expected="a folder that pegbox reward wrote",
            fix="tune one with pegbox reward",
        )
    whole = tuned.base.whole or tuned.base
    if whole.fingerprint != base.fingerprint:
        raise InputError(
            "the reward model was tuned on another base than the policy",
            where=f"{whole.name}, policy on {base.name}",
            expected="one base for both, whose weights are then in memory once",
            fix="tune the reward model with pegbox reward --model of the policy's base",
        )
    written = None if prompt.writer is None else prompt.writer.task.chat_template
    if written != chat:
        raise InputError(
            "the reward model reads conversations written in another way than the policy writes them",
            where=whole.name,
            expected="the same --chat for pegbox sft and pegbox reward",
            fix="tune one of them again with the chat of the other",
        )
    return replace(tuned, say=hush)


def _reads_rows(given: Any) -> bool:
    """Whether it takes token ids, prompts and answers of many rows, as :class:`pegbox.rlhf.Reward`."""
    return bool(getattr(given, "reads_rows", False)) or isinstance(given, FunctionReward | ModelReward)


def _function(name: str, role: str) -> Callable[[str, str], float]:
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise UsageError(
            f"{name!r} is no reward",
            where=f"{role} {name}",
            expected="a folder that pegbox reward wrote, module:function, or a .json file of rules",
            fix="check the path",
        )
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's, which may fail in any way
        raise UsageError(
            f"the reward function cannot be imported: {type(error).__name__}: {error}",
            where=f"{role} {name}",
            expected="a module in this folder or installed, and a function in it",
            fix="check both names, and that the module can be imported",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(found):
        raise UsageError(
            f"{name} is no function",
            where=f"{role} {name}",
            expected="a function of prompt and answer",
            fix="name a function of that module",
        )
    function: Callable[[str, str], float] = found
    return function


def _rules(path: Path) -> Callable[[str, str], float]:
    """A reward that adds up the weights of the patterns found in an answer.

    The file is ``{"rules": [{"pattern": REGULAR EXPRESSION, "weight": NUMBER}, ...]}``; patterns ignore case.
    """
    where = str(path)
    try:
        content = json.loads(path.read_text("utf-8"))
        rules = [
            (re.compile(rule["pattern"], re.IGNORECASE), float(rule["weight"])) for rule in content["rules"]
        ]
        if not all(map(math.isfinite, (weight for _, weight in rules))):
            raise ValueError("a weight is not a finite number")
    except FileNotFoundError:
        raise InputError("there is no such file", where=where, fix="check the path") from None
    except (ValueError, KeyError, TypeError, re.error) as error:
        raise InputError(
            f"this is no file of rules: {error}",
            where=where,
            expected='{"rules": [{"pattern": "thank you", "weight": 1.0}, ...]}',
            fix="mend it",
        ) from None

    def reward(_: str, answer: str) -> float:
        return sum(weight for pattern, weight in rules if pattern.search(answer))

    return reward
