from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pegbox.cli._evaluate import check_picture
from pegbox.cli._options import check_writable, emit, emit_result, say

if TYPE_CHECKING:
    from pegbox.tuning import Ranks


def rank(
    first: str,
    second: str | None = None,
    *,
    share: float = 0.9,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Measure what rank a change of weights has: of a LoRA adapter, or from one model to another.

    Args:
        first: Folder of a LoRA adapter, or a model.
        second: The tuned model, when the first is the model it was tuned from.
        share: Share of the squared change that the suggested rank shall hold, above 0 and up to 1.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
        plot: Draw the singular values into this .png or .svg file.
    """
    from pegbox.models import quiet_libraries
    from pegbox.tuning import rank as measure

    check_picture(plot, "--plot")
    check_writable(out, "--out")
    check_writable(plot, "--plot")
    quiet_libraries()
    found = measure(first, second, share=share)
    emit_result(found.to_json(), format, out, lambda: _print(found))
    if plot:
        from pegbox.reports import spectrum_diagram

        spectrum_diagram({item.name: item.values for item in found.spectra}, plot, title=found.what)
        say(f"singular values drawn in {plot}")


def _print(found: "Ranks") -> None:
    from rich.console import Console
    from rich.table import Table

    head = ("matrix", "shape", "rank", "largest", "effective", f"for {found.share:.0%}")
    table = Table(box=None, pad_edge=False)
    for column in head:
        table.add_column(column, overflow="fold", no_wrap=column != "matrix")
    changed = [item for item in found.spectra if item.suggested]
    for item in changed:
        shape = f"{item.shape[0]} x {item.shape[1]}"
        numbers = f"{item.values[0]:.3g}", f"{item.effective:.2f}", str(item.suggested)
        table.add_row(item.name, shape, str(item.rank), *numbers)
    if changed:
        Console().print(table)
    emit("\n".join(found.lines()) + "\n")
