SHOWN = ("method", "turns", "works on", "trained", "mergeable", "parameters")


def methods() -> None:
    """List the methods with what they work on, cost and can do."""
    from rich.console import Console
    from rich.table import Table

    from pegbox.methods import table_rows

    table = Table(*SHOWN, box=None, pad_edge=False)
    for row in table_rows():
        table.add_row(*(row[column] for column in SHOWN))
    Console().print(table)
    print("\nOptions and reasons: docs/methods.md")
