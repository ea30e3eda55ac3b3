"""Records of key: value fields and the texts that describe them."""

from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, tidy, words
from pegbox.models.etude.world._lexicon import DAY, MONTH, surname, town

_PRICE = words("cheap; moderate; expensive")
_AREA = words("riverside; city centre; old town; harbour; suburbs")
_SPECS: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "restaurants": (
        (
            "food",
            words("Italian; Indian; Japanese; French; Greek; Mexican"),
            "serves {v} food|offers {v} dishes",
        ),
        ("price", _PRICE, "is {v}|has {v} prices"),
        ("area", _AREA, "lies in the {v} area|can be found in the {v} area"),
        ("near", words("station; museum; bridge; theatre; park"), "is near the {v}|stands close to the {v}"),
        (
            "family friendly",
            ("yes", "no"),
            "yes:welcomes children|is good for families;no:is not for children|is for adults",
        ),
        ("rating", words("low; average; high"), "has a {v} customer rating|is rated {v} by its guests"),
    ),
    "houses": (
        ("rooms", words("two; three; four; five; six"), "has {v} rooms|offers {v} rooms"),
        (
            "garden",
            ("yes", "no"),
            "yes:has a garden|comes with a garden;no:has no garden|comes without a garden",
        ),
        ("area", _AREA, "lies in the {v} area|can be found in the {v} area"),
        ("heating", words("gas; wood; solar; electric"), "has {v} heating|is kept warm by {v} heating"),
        ("price", _PRICE, "is {v}|has a {v} rent"),
        ("colour", words("white; yellow; brick red; grey"), "is painted {v}|has {v} walls"),
    ),
    "courses": (
        ("subject", words("pottery; Spanish; first aid; chess; baking"), "teaches {v}|is about {v}"),
        ("day", DAY, "meets on {v}|takes place every {v}"),
        ("level", words("beginner; middle; advanced"), "is at {v} level|suits {v} students"),
        ("fee", _PRICE, "is {v}|has a {v} fee"),
        ("starts", MONTH, "starts in {v}|begins in {v}"),
    ),
    "festivals": (
        ("music", words("jazz; folk; opera; techno; brass"), "plays {v} music|is all about {v} music"),
        ("month", MONTH, "is held in {v}|takes place in {v}"),
        (
            "stage",
            words("barge; castle yard; tent; hilltop"),
            "uses a {v} as its stage|has a {v} for a stage",
        ),
        (
            "camping",
            ("yes", "no"),
            "yes:allows camping|has space for tents;no:allows no camping|has no space for tents",
        ),
        ("tickets", _PRICE, "has {v} tickets|sells {v} tickets"),
    ),
}
_KIND = {"restaurants": "restaurant", "houses": "house", "courses": "course", "festivals": "festival"}


@dataclass(frozen=True)
class Record:
    """A record and its description.

    Attributes:
        fields: (key, value) pairs, the name first.
        record: The same as ``key: value | key: value``.
        text: A description.
        references: Other right descriptions of the same record.
        label: ``faithful``, or ``wrong`` where one value in ``text`` was changed (probability ``noise``).
    """

    fields: tuple[tuple[str, str], ...]
    record: str
    text: str
    references: tuple[str, ...]
    label: str
    probabilities: dict[str, float]
    domain: str
    genre: str = "records"


def records(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Record]:
    """Return records; ``noise`` is the probability that the text states one wrong value."""
    return [record(Rand(f"records/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def record(rand: Rand, domain: str, noise: float = 0.0) -> Record:
    """Return one record with its description and two further references."""
    specs = rand.sample(_SPECS[domain], rand.integer(2, 4))
    values = [rand.pick(spec[1]) for spec in specs]
    name = _name(rand, domain)
    fields = (("name", name), *((spec[0], value) for spec, value in zip(specs, values, strict=True)))
    wrong = rand.chance(noise)
    told = list(values)
    if wrong:
        at = rand.integer(0, len(specs) - 1)
        told[at] = rand.pick([value for value in specs[at][1] if value != values[at]])
    return Record(
        fields=fields,
        record=" | ".join(f"{key}: {value}" for key, value in fields),
        text=_describe(
            rand, domain, name, [_say(rand, spec[2], v) for spec, v in zip(specs, told, strict=True)]
        ),
        references=tuple(
            _describe(
                rand, domain, name, [_say(rand, spec[2], v) for spec, v in zip(specs, values, strict=True)]
            )
            for _ in range(2)
        ),
        label="wrong" if wrong else "faithful",
        probabilities={"faithful": round(1.0 - noise, 9), "wrong": round(noise, 9)},
        domain=domain,
    )


def _name(rand: Rand, domain: str) -> str:
    if domain == "restaurants":
        ends = words("Kitchen; Table; Garden; Corner; Cellar")
        first = rand.fill(
            "[The {a}|{s}'s]", {"a": words("Golden; Blue; Old; Lucky; Green"), "s": surname(rand)}
        )
        return f"{first} {rand.pick(ends)}"
    if domain == "houses":
        return f"{surname(rand)} {rand.pick(words('House; Cottage; Lodge; Villa'))}"
    kind = "Festival" if domain == "festivals" else rand.pick(("Evening Class", "Workshop", "Course"))
    return f"{town(rand)} {kind}"


def _say(rand: Rand, phrases: str, value: str) -> str:
    if phrases.startswith("yes:"):
        phrases = dict(part.split(":") for part in phrases.split(";"))[value]
    return rand.pick(phrases.split("|")).replace("{v}", value)


def _describe(rand: Rand, domain: str, name: str, said: list[str]) -> str:
    order = rand.sample(said, len(said))
    kind = _KIND[domain]
    first = rand.fill(f"[{name} is a {kind} that|{name}|there is a {kind} called {name} that] {order[0]}")
    if len(order) > 1 and rand.chance(0.6):
        first += f" and {order.pop(1)}"
    rest = [f"it {rand.fill('[|also ]')}{verb}" for verb in order[1:]]
    if len(rest) > 1 and rand.chance(0.5):
        rest = [f"{rest[0]}, and {rest[1]}", *rest[2:]]
    return " ".join(tidy(sentence) + "." for sentence in [first, *rest])
