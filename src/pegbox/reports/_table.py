from typing import TYPE_CHECKING

from pegbox.reports._cell import plain

if TYPE_CHECKING:
    from rich.table import Table


def new_table(title: str = "") -> "Table":
    """Empty rich table in the house's look: one rule below the heads, no frame, title on the left."""
    from rich import box
    from rich.table import Table

    return Table(
        title=plain(title, "bold") if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        show_edge=False,
        pad_edge=False,
        padding=(0, 0),
    )
