"""Times in words."""


def remaining(elapsed: float, done: int, left: int) -> float:
    """Return the seconds that ``left`` steps need if they go like the ``done`` ones, overheads included."""
    return elapsed / done * left if done else 0.0


def clock(seconds: float) -> str:
    """Return ``12 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
