from dataclasses import fields

SHOWN = ("method", "turns", "works on", "trained", "mergeable", "parameters")
WIDEST = {"works on": len("encoder-decoder,")}
LETTERS = "K labels, d hidden width, r rank, V vocabulary, N rows"


def methods() -> None:
    """List the methods with what they work on, cost and can do."""
    from rich.console import Console
    from rich.table import Table

    from pegbox.methods import methods as known
    from pegbox.methods import table_rows

    table = Table(box=None, pad_edge=False)
    for column in SHOWN:
        # A narrow terminal must not cut the two that are to be typed or compared.
        table.add_column(column, overflow="fold", no_wrap=column == "method", min_width=WIDEST.get(column))
    for row in table_rows():
        table.add_row(*(row[column] for column in SHOWN))
    Console().print(table)
    print(f"\n{LETTERS}\n\nOptions, as --options.NAME VALUE of pegbox fit:")
    for name, method in known().items():
        options = [item.name for item in fields(method) if item.init]
        print(f"  {name}: {', '.join(options) or 'none'}")
    print("\nTheir meaning, defaults and reasons: docs/methods.md")
