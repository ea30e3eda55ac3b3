def methods() -> None:
    """List the methods with what they work on, cost and can do."""
    from rich.console import Console
    from rich.table import Table

    from pegbox.methods import methods as known

    table = Table("method", "turns", "works on", "trained", "mergeable", "parameters", box=None, pad_edge=False)
    for name, method in known().items():
        row = method.capability
        table.add_row(
            name,
            row.summary,
            ", ".join(row.kinds),
            "yes" if row.trains else "no",
            "yes" if row.mergeable else "no",
            row.parameters,
        )
    Console().print(table)
