from pegbox.errors import UsageError


def several_seeds(asked: int | str | None, *, first: int) -> tuple[int, ...] | None:
    """The seeds of ``--seeds``: a number of them from ``--seed`` on, or the seeds themselves.

    Args:
        asked: Such as 3, "3" or "0,1,2"; ``None`` for a fit under one seed.
        first: What ``--seed`` says.

    Raises:
        UsageError: For what is no seeds, a seed given twice, and one seed alone.
    """
    if asked is None:
        return None
    try:
        numbers = tuple(int(part) for part in str(asked).split(","))
    except ValueError:
        raise _wrong("these are no seeds", asked) from None
    seeds = tuple(range(first, first + numbers[0])) if len(numbers) == 1 else numbers
    if len(seeds) == 1:
        fix = "for a fit under one seed leave --seeds out; --seed says which"
        raise _wrong("one seed tells nothing about the others", asked, fix)
    if not seeds or min(seeds) < 0:
        raise _wrong("a negative number is no seed" if seeds else "these are no seeds", asked)
    if len(set(seeds)) < len(seeds):
        raise _wrong("a seed is given twice", asked)
    return seeds


def _wrong(what: str, asked: int | str, fix: str = "write for example --seeds 3") -> UsageError:
    return UsageError(
        what,
        where=f"--seeds {asked}",
        expected="how many, at least 2, or different seeds of at least 0, such as 0,1,2",
        fix=fix,
    )
