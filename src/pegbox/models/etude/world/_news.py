"""News briefs whose topic is drawn from the exact mixture of what their sentences are about."""

import math
from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, added, flip, tidy, words
from pegbox.models.etude.world._lexicon import DAY, MONTH, NUMBER, organisation, person, place

TOPICS = ("sport", "business", "weather", "science")

WEIGHT = 2.0
"""Log-odds of a topic per sentence about it."""

_SENTENCES = {
    "sport": words(
        "{person} [won|lost] the {game} [final|cup] in {place} on {day}; the {place} {team} beat their "
        "rivals by {n} points; "
        "{n} thousand fans watched the {game} at {place}; coach {person} blamed the [referee|tired "
        "legs|missed chances]; "
        "the {game} season opens in {month}; the {team} [train|rest] in {place} until {month}; {n} teams "
        "will start the {game} in {place}; "
        "{person} retired from {game} at the age of thirty-{n}; the {game} league will grow by {n} teams; "
        "an injury keeps {person} out of the {game} for {n} weeks; a "
        "late [goal|sprint|"
        "burst] decided the {game}; the {team} signed {person} for {n} years; {person} set a new record "
        "in the {game}"
    ),
    "business": words(
        "{org} [raised|cut] its forecast on {day}; profits at {org} [rose|fell] by {n} per cent; the "
        "{trade} in {place} will "
        "[hire|lay off] {n} dozen workers; {org} agreed to buy a rival for {n} million; prices for "
        "{goods} [climbed|slipped] "
        "in {month}; {person} was named head of {org}; {org} opened a [second|third] office in {place}; "
        "the {trade} sold {n} per cent more {goods}; "
        "shares in {org} closed [higher|lower]; a strike stopped work at the {trade} for {n} days; "
        "investors [cheered|doubted] the plans of {org}; "
        "the {trade} reported "
        "strong demand for {goods}; banks [raised|lowered] interest rates on {day}"
    ),
    "weather": words(
        "the sun will break through over {place} by noon; {n} centimetres of rain fell on the {spot}; "
        "the wind turned north near {place}; after {hazard}, {n} trees lay across the tracks; "
        "forecasters expect [rain|heavy showers|clear skies] over {place} on {day}; a storm tore the "
        "roof off the {spot} in "
        "{place}; temperatures will [fall|rise] to {n} degrees by {day}; {hazard} closed the road near "
        "{place}; the {spot} "
        "was flooded after {n} hours of rain; {hazard} is likely until {day}; the "
        "[warmest|coldest|wettest] {month} in {n} "
        "years ended with {hazard}; residents of {place} were told to stay at home because of {hazard}"
    ),
    "science": words(
        "a fossil of a {creature} was dug up near {place}; {person} showed that {matter} can be modelled; "
        "a new microscope at {org} makes {matter} visible; {n} laboratories repeated the study of {matter}; "
        "researchers in {place} have found a new kind of {creature}; a study of {n} thousand patients "
        "links sleep to memory; "
        "{person} won a prize for work on {matter}; a team at {org} measured {matter} more exactly than "
        "before; the experiment "
        "on {matter} took {n} years; scientists tracked a {creature} with tiny transmitters; a telescope "
        "near {place} has seen "
        "a distant star; the laboratory published its data on {matter}; the vaccine trial starts in {month}"
    ),
}
_TAILS = (
    *([""] * 6),
    ", officials said on {day}",
    ", {person} told reporters",
    ", after weeks of waiting",
    " for the first time since {month}",
    ", to the surprise of many in {place}",
    ", as had been expected",
    ", said a spokesman for {org}",
    ", in spite of a slow start in {month}",
)
_SETTINGS = {
    "city": {
        "game": words("football; basketball; tennis; boxing"),
        "team": words("strikers; city side; dribblers; guards"),
        "trade": words("car plant; department store; bank; publishing house"),
        "goods": words("cars; flats; furniture; newspapers; office chairs"),
        "spot": words("stadium; tram depot; town hall; market"),
        "hazard": words("fog; hail; black ice; a heat wave"),
        "creature": words("rat; pigeon; moth; fox"),
        "matter": words("traffic noise; clean air; new batteries; the brain"),
    },
    "coast": {
        "game": words("sailing; rowing; swimming; beach volleyball"),
        "team": words("rowers; crew; swimmers; sailing club"),
        "trade": words("shipyard; fish market; ferry company; cannery"),
        "goods": words("herring; boats; salt; ferry tickets"),
        "spot": words("pier; lighthouse; harbour office; boathouse"),
        "hazard": words("a gale; high tide; sea fog; a hurricane"),
        "creature": words("crab; whale; jellyfish; gull"),
        "matter": words("coral; plankton; ocean currents; seaweed"),
    },
    "farmland": {
        "game": words("cycling; horse racing; cricket; wrestling"),
        "team": words("riders; bowlers; village eleven; wrestlers"),
        "trade": words("dairy; mill; tractor works; brewery"),
        "goods": words("wheat; milk; apples; wool"),
        "spot": words("barn; village school; chapel; silo"),
        "hazard": words("frost; drought; thunder; a dust storm"),
        "creature": words("beetle; owl; mouse; bee"),
        "matter": words("soil; plant roots; grain; pollen"),
    },
    "mountain": {
        "game": words("slalom; ski jumping; climbing; ice hockey"),
        "team": words("skiers; jumpers; ice hockey side; climbers"),
        "trade": words("cable car company; quarry; ski resort; sawmill"),
        "goods": words("timber; lift passes; granite; cheese"),
        "spot": words("summit hut; cable car; chalet; ski lift"),
        "hazard": words("an avalanche; deep snow; a blizzard; a landslide"),
        "creature": words("marmot; eagle; ibex; lichen"),
        "matter": words("glaciers; thin air; rock layers; snow crystals"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class News:
    """A brief; ``counts`` says how many sentences speak about each topic, in the order of ``TOPICS``."""

    text: str
    label: str
    probabilities: dict[str, float]
    domain: str
    counts: tuple[int, ...]
    genre: str = "news"


def news(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[News]:
    """Return news briefs of one setting; ``noise`` replaces the topic by another one."""
    return [brief(Rand(f"news/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def brief(rand: Rand, domain: str, noise: float = 0.0) -> News:
    """Return one brief."""
    main = rand.pick(TOPICS)
    topics = [
        main if rand.chance(0.8) else rand.pick(TOPICS)
        for _ in range(rand.weighted({1: 1, 2: 4, 3: 4, 4: 2}))
    ]
    pools = {topic: rand.sample(_SENTENCES[topic], len(topics)) for topic in TOPICS}
    sentences = [tidy(_fill(rand, pools[topic].pop() + rand.pick(_TAILS), domain)) + "." for topic in topics]
    counts = tuple(topics.count(topic) for topic in TOPICS)
    total = added(math.exp(WEIGHT * count) for count in counts)
    exact = {t: round(math.exp(WEIGHT * count) / total, 9) for t, count in zip(TOPICS, counts, strict=True)}
    probabilities = flip(exact, noise)
    return News(" ".join(sentences), rand.weighted(probabilities), probabilities, domain, counts)


def _fill(rand: Rand, pattern: str, domain: str) -> str:
    slots = {**_SETTINGS[domain], "day": DAY, "month": MONTH, "n": NUMBER}
    return rand.fill(
        pattern, {**slots, "person": person(rand), "place": place(rand), "org": organisation(rand)}
    )
