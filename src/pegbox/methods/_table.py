"""The capability table, as rows for a terminal and as the page docs/methods.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import get_args

from pegbox.methods._method import Capability, Method
from pegbox.methods._registry import methods
from pegbox.tasks import Kind

COLUMNS = (
    "method",
    "turns",
    "works on",
    "seen working on",
    "trained",
    "starts at the base",
    "mergeable",
    "quantised base",
    "at prediction",
    "parameters",
    "source",
)
_INTRODUCTION = """# Methods

This page is generated from the capability table in `pegbox.methods`; `pegbox methods` prints the same table,
and `pegbox methods METHOD` what is here of one. d is the hidden width, K the number of labels, r a rank, V
the vocabulary, N the number of rows. An encoder is a model without an output layer, such as a sentence
embedder.
"""


def table_rows() -> list[dict[str, str]]:
    """One mapping per method, from each of the table's columns to a text."""
    return [_row(name, method.capability) for name, method in methods().items()]


def table_markdown() -> str:
    """The page docs/methods.md: the table, then every method with its options."""
    rows = table_rows()
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(row.values()) for row in rows)]
    sections = [_section(name, method) for name, method in methods().items()]
    return "\n".join([_INTRODUCTION, *lines, *sections]) + "\n"


def method_markdown(method: type[Method]) -> str:
    """One method in Markdown: its row of the table, what it does, where it cannot work, its options."""
    row = _row(method.name, method.capability)
    facts = [f"- {column}: {row[column]}" for column in COLUMNS[1:] if row[column]]
    head, *rest = _section(method.name, method).strip().split("\n\n")
    return "\n\n".join([head, "\n".join(facts), *rest]) + "\n"


def _row(name: str, capability: Capability) -> dict[str, str]:
    cells = (
        name,
        capability.summary,
        ", ".join(capability.kinds),
        ", ".join(capability.architectures) or "every family that loads",
        _trained(capability),
        _yes(capability.starts_at_base) if capability.trains else "solved in one step",
        _yes(capability.mergeable),
        _yes(capability.quantised),
        capability.inference,
        capability.parameters,
        capability.source,
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _trained(capability: Capability) -> str:
    if not capability.learning_rate:
        return _yes(capability.trains)
    others = [f"{name} {value}" for name, value in capability.defaults.items()]
    if capability.token_rate:
        others.insert(0, f"a head on tokens {capability.token_rate:g}")
    return ", ".join([f"yes, peak rate {capability.learning_rate:g}", *others])


def _section(name: str, method: type[Method]) -> str:
    documented = inspect.getdoc(method) or ""
    text, described = documented.partition("\n\nArgs:\n")[0], _described(documented)
    kinds: tuple[Kind, ...] = get_args(Kind)
    refused = [kind for kind in kinds if kind not in method.capability.kinds]
    lines = ["", f"## {name}", "", " ".join(text.split())]
    lines += ["", *(f"- Not on {_named(kind)}: {_fix(method, kind)}." for kind in refused)] if refused else []
    holes = method.capability.holes
    lines += (
        ["", *(f"- Not on {family} models: {reason}." for family, reason in holes.items())] if holes else []
    )
    if described:
        lines += ["", _line(("option", "default", "meaning")), _line(["---"] * 3)]
        lines += [_line((option, _default(method, option), meaning)) for option, meaning in described.items()]
    return "\n".join(lines)


def _described(documented: str) -> dict[str, str]:
    """Option to its description, from the Args section of a docstring."""
    found: dict[str, str] = {}
    section = documented.partition("\n\nArgs:\n")[2].partition("\n\n")[0]
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            option, _, text = line.strip().partition(": ")
            found[option] = text
        elif found:
            found[list(found)[-1]] += " " + line.strip()
    return found


def _default(method: type[Method], option: str) -> str:
    default = {item.name: item.default for item in fields(method)}[option]
    return "" if default is MISSING else f"`{default}`"


def _fix(method: type[Method], kind: Kind) -> str:
    refusals: Mapping[Kind, str] = method.capability.refusals
    return refusals[kind]


def _named(kind: Kind) -> str:
    return "encoders" if kind == "encoder" else f"{kind} models"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("``", "`").replace("|", "\\|") for cell in cells) + " |"
