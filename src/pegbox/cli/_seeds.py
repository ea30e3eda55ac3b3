from pegbox.errors import UsageError


def several_seeds(asked: int | str | None, *, first: int, least: int = 2) -> tuple[int, ...] | None:
    """The seeds of ``--seeds``: a number of them from ``--seed`` on, or the seeds themselves.

    Args:
        asked: Such as 3, "3" or "0,1,2"; ``None`` for a fit under one seed.
        first: What ``--seed`` says.
        least: How many it must be.

    Raises:
        UsageError: For what is no seeds, a seed given twice, and fewer than the least.
    """
    if asked is None:
        return None
    try:
        numbers = tuple(int(part) for part in str(asked).split(","))
    except ValueError:
        raise _wrong("these are no seeds", asked, least) from None
    seeds = tuple(range(first, first + numbers[0])) if len(numbers) == 1 else numbers
    if len(seeds) == 1 < least:
        fix = "for a fit under one seed leave --seeds out; --seed says which"
        raise _wrong("one seed tells nothing about the others", asked, least, fix)
    if not seeds or min(seeds) < 0:
        raise _wrong("a negative number is no seed" if seeds else "these are no seeds", asked, least)
    if len(set(seeds)) < len(seeds):
        raise _wrong("a seed is given twice", asked, least)
    return seeds


def _wrong(what: str, asked: int | str, least: int, fix: str = "write for example --seeds 3") -> UsageError:
    return UsageError(
        what,
        where=f"--seeds {asked}",
        expected=f"how many, at least {least}, or different seeds of at least 0, such as 0,1,2",
        fix=fix,
    )
