import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pegbox.data._examples import text_fault
from pegbox.errors import nearest

Role = Literal["system", "user", "assistant"]
ROLES = {role: role for role in get_args(Role)}
SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
_UNSUPPORTED = {
    "name": "speakers have no names",
    "weight": "every answer counts the same",
    "train": "every answer counts the same",
    "tool_calls": "calls of tools are no text",
    "tool_call_id": "calls of tools are no text",
    "function_call": "calls of tools are no text",
    "thinking": "write it into the content, or leave it out",
    "reasoning_content": "write it into the content, or leave it out",
    "images": "messages are text",
    "audio": "messages are text",
}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: Who speaks: ``system``, ``user`` or ``assistant``.
        content: What is said, unchanged.
    """

    role: Role
    content: str


class RowFaultError(ValueError):
    """Why a row cannot be used; its text is the reason."""


def message_list(cell: object, what: str, style: str = "messages") -> tuple[Message, ...]:
    """The messages of one cell: a list of mappings, or the JSON text of one.

    Args:
        cell: The cell.
        what: What it is called in faults, such as ``column 'messages'``.
        style: ``messages`` for the keys role and content, ``sharegpt`` for from and value.

    Raises:
        RowFaultError: When it is no such list; roles may stand in any order (see :func:`check_turns`).
    """
    found = _from_json(cell, what) if isinstance(cell, str) else cell
    if found is None:
        raise RowFaultError(f"no messages in {what}")
    if not isinstance(found, list | tuple):
        raise RowFaultError(f"{what} holds {type(found).__name__}, not a list of messages")
    if not found:
        raise RowFaultError(f"no messages in {what}")
    return tuple(_message(item, f"message {place} in {what}", style) for place, item in enumerate(found, 1))


def check_turns(messages: Sequence[Message], *, answered: bool) -> None:
    """Check the order of roles: at most one system message, then user and assistant in turns.

    Raises:
        RowFaultError: For another order, which names the message, or for an end with the wrong speaker.
    """
    start = 1 if messages and messages[0].role == "system" else 0
    for place, message in enumerate(messages[start:]):
        expected = "assistant" if place % 2 else "user"
        if message.role == "system":
            raise RowFaultError(f"message {start + place + 1} is of the system, which only the first may be")
        if message.role != expected:
            raise RowFaultError(
                f"message {start + place + 1} is of the {message.role}, where the {expected} has the turn"
            )
    if len(messages) == start:
        raise RowFaultError("no message of the user")
    if answered and messages[-1].role == "user":
        raise RowFaultError("the conversation ends with the user, without an answer")
    if not answered and messages[-1].role == "assistant":
        raise RowFaultError("the conversation ends with the assistant, where the user should ask")


def _from_json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fault = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise RowFaultError(f"{what} is text that is no JSON list of messages: {fault}") from None


def _message(item: object, what: str, style: str) -> Message:
    if isinstance(item, Message):
        item = {"role": item.role, "content": item.content}
    if not isinstance(item, Mapping):
        raise RowFaultError(f"{what} is {type(item).__name__}, not a mapping")
    keys = ("from", "value") if style == "sharegpt" else ("role", "content")
    _check_keys(item, keys, what)
    roles = SHAREGPT_ROLES if style == "sharegpt" else ROLES
    role = roles.get(item[keys[0]]) if isinstance(item[keys[0]], str) else None
    if role is None:
        raise RowFaultError(_unknown_role(item[keys[0]], list(roles), what))
    content = item[keys[1]]
    if content is not None and not isinstance(content, str):
        parts = ": images and other parts are not supported" if isinstance(content, list) else ""
        raise RowFaultError(f"the {keys[1]} of {what} is {type(content).__name__}, not text{parts}")
    fault = text_fault(content)
    # An empty system message says something: templates with a system message of their own then leave it out.
    if fault and not (role == "system" and fault == "empty text"):
        raise RowFaultError(f"{what}, of the {role}: {fault}")
    return Message(role, str(content))


def _check_keys(item: Mapping[object, object], keys: tuple[str, str], what: str) -> None:
    valid = " and ".join(keys)
    for key, value in item.items():
        # Arrow fills keys that only other rows have with None.
        if key in keys or value is None:
            continue
        if key in _UNSUPPORTED:
            raise RowFaultError(
                f"{what} has the key {key!r}, which is not supported: {_UNSUPPORTED[str(key)]}"
            )
        hint = f", {found}" if (found := nearest(str(key), keys)) else ""
        raise RowFaultError(f"{what} has the unknown key {key!r}{hint} (valid: {valid})")
    for key in keys:
        if key not in item:
            raise RowFaultError(f"{what} has no key {key!r} (valid: {valid})")


def _unknown_role(role: object, valid: Sequence[str], what: str) -> str:
    shown = repr(role if len(str(role)) <= 40 else str(role)[:39] + "…")
    if role in ("tool", "function", "function_call", "observation", "ipython"):
        return f"{what} is of {shown}, which is not supported: calls of tools are no text"
    hint = f", {found}" if (found := nearest(str(role), valid)) else ""
    return f"{what} is of the unknown role {shown}{hint} (valid: {', '.join(valid)})"
