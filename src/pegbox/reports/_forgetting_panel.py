from typing import TYPE_CHECKING

from pegbox.evaluation import Forgetting, signed
from pegbox.reports import _format
from pegbox.reports._cell import IntervalCell, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def forgetting_panel(forgetting: Forgetting, title: str = "forgetting") -> "RenderableType":
    """Rich view of what tuning did to general text and to other tasks.

    Args:
        forgetting: What `pegbox.tuning.forgetting` measured.
        title: Shown on the panel's edge.
    """
    from rich.console import Group
    from rich.panel import Panel

    parts: list[RenderableType] = []
    if forgetting.documents:
        parts.append(_text(forgetting))
    if forgetting.also:
        parts += [""] if parts else []
        parts.append(_also(forgetting))
    return Panel(Group(*parts), title=plain(title), title_align="left", expand=False)


def _text(forgetting: Forgetting) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("general text", plain(forgetting.source))
    scored = f"{_format.count(forgetting.documents)} documents, {_format.count(forgetting.bytes)} bytes"
    table.add_row("scored", scored)
    table.add_row(f"base, {forgetting.kind}", IntervalCell(forgetting.before))
    table.add_row(f"tuned, {forgetting.kind}", IntervalCell(forgetting.after))
    table.add_row("change (above 0: forgotten)", plain(signed(forgetting.change)))
    off = {None: "no adapter to switch off", 0.0: "0 exactly"}.get(forgetting.off)
    table.add_row("change, adapter off", off or f"{forgetting.off:+.6f}")
    return table


def _also(forgetting: Forgetting) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for place, head in enumerate(("accuracy on", "rows", "base", "tuned", "tuned - base")):
        table.add_column(plain(head), justify="right" if place else "left", overflow="fold")
    for part in forgetting.also:
        gap = "0 exactly, nothing was turned" if part.unturned else str(part.difference)
        cells = (IntervalCell(part.before), IntervalCell(part.after), plain(gap))
        table.add_row(plain(part.name), _format.count(part.rows), *cells)
    return table
