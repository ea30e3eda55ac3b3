import math

from pegbox.evaluation import Estimate, Flips

NONE = "-"


def count(number: int | None) -> str:
    """Whole number with thousands separators."""
    return NONE if number is None else f"{number:,}"


def short_count(number: int | None) -> str:
    """At most six characters: 98,304, then 0.10M, 1.23M, 123M, 1.23B."""
    if number is None or number < 100_000:
        return count(number)
    value, unit = (number / 1e6, "M") if number < 999_500_000 else (number / 1e9, "B")
    return f"{value:.2f}{unit}" if value < 99.995 else f"{value:.0f}{unit}"


def size(number: int | None) -> str:
    """Bytes in the largest fitting unit: 1,234 B, 12.1 KiB, 130 KiB, 3.0 MiB."""
    if number is None or number < 10_000:
        return NONE if number is None else f"{number:,} B"
    value, units = number / 1024, ["KiB", "MiB", "GiB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if value < 99.95 else f"{value:.0f} {units[0]}"


def seconds(number: float | None) -> str:
    """Wall-clock time: 0.04, 7.2, 95, 12:05 (minutes) or 3:20:00 (hours)."""
    if number is None:
        return NONE
    if number < 1:
        return f"{number:.2f}"
    if number < 9.95:
        return f"{number:.1f}"
    whole = round(number)
    if whole < 100:
        return str(whole)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(number: float | None) -> str:
    """The same in words: < 0.01 s, 0.04 s, 95 s, 12 min 5 s, 3 h 20 min."""
    if number is None:
        return NONE
    if 0 < number < 0.005:
        return "< 0.01 s"
    whole = round(number)
    if whole < 100:
        return f"{seconds(number)} s"
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(number: float | None) -> str:
    """A short time in words: 0.34 µs, 4.9 ms, 130 ms, then as `duration`."""
    if number is None:
        return NONE
    if number >= 0.9995:
        return duration(number)
    value, unit = (1e3 * number, "ms") if number >= 0.9995e-3 else (1e6 * number, "µs")
    return f"{value:.3g} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def operations(number: float | None) -> str:
    """Floating point operations: 514, 1.23 M, 45.6 G, 7.89 T."""
    if number is None:
        return NONE
    units = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}".strip()


def value(estimate: Estimate | None) -> str:
    """Point estimate alone."""
    return NONE if estimate is None or math.isnan(estimate.value) else f"{estimate.value:.3f}"


def interval(estimate: Estimate | None) -> str:
    """Point estimate with its interval."""
    return NONE if estimate is None or math.isnan(estimate.value) else str(estimate)


def signed(estimate: Estimate | None) -> str:
    """A change with its interval, with signs: +0.038 [+0.010, +0.066]; what rounds to zero has a plus."""
    if estimate is None or math.isnan(estimate.value):
        return NONE
    if math.isnan(estimate.low):
        return f"{estimate.value:+z.3f}"
    return f"{estimate.value:+z.3f} [{estimate.low:+z.3f}, {estimate.high:+z.3f}]"


def p_value(p: float) -> str:
    """With its sign of relation: p = 0.008, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def flips(changes: Flips | None) -> str:
    """Mended and broken rows: +34 −12."""
    if changes is None:
        return NONE
    return f"+{changes.wrong_to_right.count} −{changes.right_to_wrong.count}"


def legible(text: str) -> str:
    """Text without what no page can hold, controls and halves of surrogate pairs: each becomes a mark."""
    return "".join(sign if _may_stand(sign) else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _may_stand(sign: str) -> bool:
    code = ord(sign)
    if 0xD800 <= code <= 0xDFFF or code in (0xFFFE, 0xFFFF):
        return False
    return sign in "\t\n\r" or (code >= 0x20 and not 0x7F <= code <= 0x9F)
