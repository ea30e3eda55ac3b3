from dataclasses import fields

SHOWN = ("method", "turns", "works on", "trained", "mergeable")
# What a narrow terminal must not cut, since it is to be typed or compared.
WHOLE = ("method", "works on", "mergeable")
LETTERS = "K labels, d hidden width, r rank, V vocabulary, N rows"


def methods(method: str | None = None) -> None:
    """List the methods with what they work on, cost and can do, or one with its options.

    Args:
        method: The one to describe in Markdown, with the meaning and default of each option.
    """
    from rich.console import Console
    from rich.table import Table

    from pegbox.methods import method_markdown, method_of, table_rows
    from pegbox.methods import methods as known

    if method is not None:
        print(method_markdown(method_of(method)), end="")
        return
    rows = table_rows()
    table = Table(box=None, pad_edge=False)
    for column in SHOWN:
        table.add_column(column, overflow="fold", no_wrap=column in WHOLE)
    for row in rows:
        shown = row | {"works on": row["works on"].replace(", ", ",\n")}
        table.add_row(*(shown[column] for column in SHOWN))
    Console().print(table)
    print(f"\nParameters ({LETTERS}):")
    for row in rows:
        print(f"  {row['method']}: {row['parameters']}")
    print("\nOptions, as --options.NAME VALUE of pegbox fit:")
    for name, one in known().items():
        options = [item.name for item in fields(one) if item.init]
        print(f"  {name}: {', '.join(options) or 'none'}")
    print("\nTheir meanings and defaults: pegbox methods METHOD")
