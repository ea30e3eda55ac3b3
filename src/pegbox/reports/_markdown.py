from collections.abc import Collection, Sequence


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str]) -> str:
    """GitHub Markdown table, ending in a newline.

    Args:
        heads: Heads of the columns.
        rows: Cells; bars and backslashes in them are escaped.
        words: Heads of the columns that stand on the left; the others hold numbers.
    """
    rule = ["---" if head in words else "---:" for head in heads]
    lines = [heads, rule, *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split())
