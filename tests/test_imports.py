"""The rooms' order: a room imports only rooms to its left, and nothing heavy loads before work starts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pegbox

SOURCE = Path(pegbox.__file__).parent
ORDER = [
    "errors",
    "data",
    "tasks",
    "models",
    "methods",
    "training",
    "uncertainty",
    "rlhf",
    "evaluation",
    "tuning",
    "comparison",
    "reports",
    "serving",
    "cli",
]
HEAVY = (
    *("torch", "transformers", "peft", "datasets", "pandas", "sklearn"),
    *("matplotlib", "scipy", "numpy", "rich", "jinja2", "ray", "fastapi", "uvicorn"),
)
# A room within a room: the embedded model, its world and its training are imported by their own names.
INNER = "pegbox.models.etude"


def names_imported(path: Path) -> set[str]:
    """Names of Pegbox that a module imports, also inside functions and for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("pegbox.")}


def rooms_imported(path: Path) -> set[str]:
    """Rooms that a module imports."""
    return {name.split(".")[1] for name in names_imported(path)} & set(ORDER)


def is_private(name: str) -> bool:
    """Whether a room's ``__init__`` does not export a name; ``pegbox.room.name`` it does."""
    return "._" in name or (name.count(".") > 2 and not name.startswith(f"{INNER}."))


@pytest.mark.parametrize("room", [room for room in ORDER if (SOURCE / room).is_dir()])
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    allowed = set(ORDER[: ORDER.index(room) + 1])
    for path in (SOURCE / room).rglob("*.py"):
        wrong = rooms_imported(path) - allowed
        assert not wrong, f"{path.relative_to(SOURCE)} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", [room for room in ORDER if (SOURCE / room).is_dir()])
def test_a_room_imports_only_public_names_of_others(room: str) -> None:
    for path in (SOURCE / room).rglob("*.py"):
        name = str(path.relative_to(SOURCE))
        others = {one for one in names_imported(path) if one.split(".")[1] in set(ORDER) - {room}}
        wrong = {one for one in others if is_private(one)}
        assert not wrong, f"{name} imports {sorted(wrong)}: let that room's __init__ export what others need"


def test_every_folder_is_a_room_of_the_plan() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ORDER)


def test_no_method_imports_another_method() -> None:
    modules = {path.stem for path in (SOURCE / "methods").glob("*.py") if not path.name.startswith("_")}
    for name in modules:
        source = (SOURCE / "methods" / f"{name}.py").read_text("utf-8")
        others = [other for other in modules - {name} if f"pegbox.methods.{other}" in source]
        assert not others, f"{name} imports {others}"


@pytest.mark.parametrize("code", ["import pegbox", "from pegbox.cli import main; main(['--help'])"])
def test_nothing_heavy_is_imported_before_work_starts(code: str) -> None:
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
    program += f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_public_names_resolve() -> None:
    for package in (pegbox, pegbox.models, pegbox.methods):  # type: ignore[attr-defined]
        assert sorted(package.__all__) == sorted(set(package.__all__))
        for name in package.__all__:
            assert getattr(package, name) is not None
