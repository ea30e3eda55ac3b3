from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pegbox.evaluation._scores import Scores

_WIDEST_NAME = 24
_MOST_LABELS = 12


def scores_text(scores: "Scores") -> str:
    """Plain text of the main numbers, one block, no colours."""
    lines = [f"{'rows':<10} {scores.rows:,}"]
    lines += [f"{name:<10} {estimate}" for name, estimate in scores.metrics.items()]
    if scores.flips:
        lines.append(f"{'flips':<10} {scores.flips}")
    if scores.seconds is not None:
        lines.append(f"{'seconds':<10} {scores.seconds:.1f}")
    lines += ["", *_per_class(scores)]
    if len(scores.labels) <= _MOST_LABELS:
        lines += ["", *_confusion(scores)]
    return "\n".join(lines)


def _per_class(scores: "Scores") -> list[str]:
    width = max(len("label"), *(len(_short(name)) for name in scores.labels))
    head = f"{'label':<{width}}  {'precision':<20}  {'recall':<20}  {'F1':<20}  support"
    return [head] + [
        f"{_short(name):<{width}}  {part.precision!s:<20}  {part.recall!s:<20}  {part.f1!s:<20}  "
        f"{part.support:>7,}"
        for name, part in scores.per_class.items()
    ]


def _confusion(scores: "Scores") -> list[str]:
    names = [_short(name) for name in scores.labels]
    largest = max(len(f"{count:,}") for line in scores.confusion for count in line)
    title = "gold \\ predicted"
    first = max(len(title), *(len(name) for name in names))
    widths = [max(len(name), largest) for name in names]
    head = "  ".join([f"{title:<{first}}", *(f"{name:>{w}}" for name, w in zip(names, widths, strict=True))])
    body = [
        "  ".join([f"{name:<{first}}", *(f"{count:>{w},}" for count, w in zip(line, widths, strict=True))])
        for name, line in zip(names, scores.confusion, strict=True)
    ]
    return [head, *body]


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 1] + "…"
