"""Figures that pages state in passing, each measured by a part; writes its section of docs/results.md.

python bench/claims.py                       measure what is missing, then write the section
python bench/claims.py --only words losses   only these parts; the section keeps the others
python bench/claims.py --quick               a smoke run, into a folder of its own
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import _claims_models as models
import _claims_sums as sums
import _common as common

FOLDER = common.RUNS / "bench" / "claims"
PAGE = common.ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Part:
    """One claim.

    Args:
        title: Its heading.
        page: The page that states it.
        measure: Measures it; the argument is whether a smoke run is wanted.
        told: Its figures in Markdown.
    """

    title: str
    page: str
    measure: Callable[[bool], common.Cell]
    told: Callable[[common.Cell], str]


PARTS = {
    "words": Part("Searched label words", "prompts.md", models.label_words, models.told_label_words),
    "pooling": Part("Mean or first token", "readout.md", models.pooling, models.told_pooling),
    "left-out": Part("Leaving one row out", "closed-form.md", sums.left_out, sums.told_left_out),
    "losses": Part("Time of the two losses", "closed-form.md", sums.losses, sums.told_losses),
    "probit": Part("The probit", "laplace.md", sums.probit, sums.told_probit),
    "attention": Part("Attention in bf16", "training.md", sums.attention, sums.told_attention),
    "casts": Part("Casts to bf16", "training.md", sums.casts, sums.told_casts),
    "four-bits": Part("Rows of whole blocks", "quantised.md", sums.four_bits, sums.told_four_bits),
    "doctor": Part("Time of the doctor", "data.md", models.doctor, models.told_doctor),
    "untuned": Part("Etude without tuning", "etude.md", models.untuned, models.told_untuned),
    "curve": Part("Time of a learning curve", "learning-curve.md", models.curve, models.told_curve),
    "merging": Part("What merging rounds", "merge.md", models.merging, models.told_merging),
    "texts": Part("Slots and queries", "generation.md", models.texts, models.told_texts),
}


def key(name: str, quick: bool) -> dict[str, object]:
    """The key of a part's cell."""
    return {"part": name, "quick": quick}


def report(found: dict[str, common.Cell]) -> str:
    """The section in Markdown."""
    intro = (
        "What pages state in passing and no other section shows. Each part is measured alone, on one thread; "
        "`--only` names parts."
    )
    where = "\n".join(["- Command: `python bench/claims.py`.", *common.provenance(found.values())])
    parts = ["## Claims of the pages", intro, where]
    for name, cell in found.items():
        part = PARTS[name]
        parts += [
            f"### {part.title}",
            f"For [{part.page.removesuffix('.md')}]({part.page}), `python bench/claims.py --only {name}`. "
            + part.told(cell),
        ]
    return "\n\n".join(parts)


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "quick"))
    arguments = common.parse(parser)
    from pegbox.models import quiet_libraries

    quiet_libraries()
    store = common.Cells(arguments.out, arguments.fresh)
    with common.threads(1):
        for name in arguments.only:
            common.log(name)
            store.get(key(name, arguments.quick), partial(PARTS[name].measure, arguments.quick))
    cells = {name: store.find(key(name, arguments.quick)) for name in PARTS}
    found = {name: cell for name, cell in cells.items() if cell is not None}
    common.write_section(arguments.page, "claims", report(found))


if __name__ == "__main__":
    main()
