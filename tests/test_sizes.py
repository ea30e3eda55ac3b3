"""Modules hold one concept, and functions fit on a screen."""

import ast
from pathlib import Path

import pegbox

SOURCE = Path(pegbox.__file__).parent
MODULE, BODY = 420, 50
# Longer than that for now, and in no other respect exempt.
EXEMPT: set[str] = set()
PATHS = [path for path in sorted(SOURCE.rglob("*.py")) if str(path.relative_to(SOURCE)) not in EXEMPT]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    first = function.body[ast.get_docstring(function) is not None :]
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def functions(path: Path) -> list[tuple[str, int]]:
    """Names of a module's functions, methods and inner functions, and the lines of their bodies."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    found = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.name, body_lines(node)) for node in found]


def test_modules_are_short() -> None:
    lengths = {path.relative_to(SOURCE): len(path.read_text("utf-8").splitlines()) for path in PATHS}
    long = {str(path): count for path, count in lengths.items() if count > MODULE}
    assert not long, f"over {MODULE} lines; split it where its concepts part: {long}"


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(SOURCE)} {name} ({count})"
        for path in PATHS
        for name, count in functions(path)
        if count > BODY
    ]
    assert not long, f"bodies over {BODY} lines: {long}"


def test_exemptions_are_needed() -> None:
    for name in EXEMPT:
        path = SOURCE / name
        lines = len(path.read_text("utf-8").splitlines())
        assert lines > MODULE or any(count > BODY for _, count in functions(path)), f"{name} fits by now"
