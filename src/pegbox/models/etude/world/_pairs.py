"""Premise and hypothesis pairs: does the hypothesis follow (yes), may it be so (maybe), or not (no)."""

from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, flip, tidy, words

ANSWERS = ("yes", "maybe", "no")

_TRUTH = {
    "yes": {"yes": 0.94, "maybe": 0.05, "no": 0.01},
    "maybe": {"yes": 0.06, "maybe": 0.90, "no": 0.04},
    "no": {"yes": 0.01, "maybe": 0.05, "no": 0.94},
    "yes hedged": {"yes": 0.55, "maybe": 0.43, "no": 0.02},
    "no hedged": {"yes": 0.02, "maybe": 0.43, "no": 0.55},
}
_HEDGES = words(
    "it looks as if; perhaps; somebody claims that; from here it seems that; I am not sure, but maybe"
)
_GROUPS = {
    "person": words("person"),
    "man": words("person; man"),
    "woman": words("person; woman"),
    "child": words("person; child"),
}
_UNKNOWN = words(
    "for the first time; because of a bet; to earn some money; to please an uncle; after a long illness; "
    "instead of going to the cinema; for the third year running; with the wrong glasses on; to forget a "
    "quarrel; "
    " for a friend; before going home; while "
    "thinking of supper; "
    "in spite of a headache; every single day; without anyone knowing; on a holiday; to win a prize"
)
_WHEN = words(
    "today; this morning; at noon; in the rain; in bright sunshine; late at night; on a cold day; after "
    "breakfast; before sunrise; on a Sunday; at half past two; in thick fog"
)
_LOOKS = words(
    "tall; young; old; tired; cheerful; quiet; bearded; barefoot; elegant; muddy; small; big; blonde; "
    "limping; smiling; grumpy; thin; well-dressed; curly-haired; sunburnt"
)

_SCENES = {
    "kitchen": (
        "boy=child; cook=person; grandmother=woman; waiter=man; girl=child; baker=person; chef=person; "
        "neighbour=person",
        "kneading dough=making bread=washing plates; chopping onions=cutting vegetables=sleeping in a "
        "chair; stirring soup="
        "cooking=reading a newspaper; peeling an apple=handling fruit=dancing on a table; boiling "
        "water=heating water="
        "emptying the fridge; tasting a sauce=trying some food=repairing a lamp",
        "near the stove; by the window; at the sink; beside the fridge; at the long table",
    ),
    "street": (
        "cyclist=person; policeman=man; nurse=woman; boy=child; postman=man; musician=person; "
        "girl=child; tourist=person",
        "crossing the road=moving=sitting on a bench; waiting for a bus=standing still=running away; "
        "playing a violin=making "
        "music=sweeping the steps; carrying a ladder=holding something=climbing a tree; chasing a "
        "ball=running=lying asleep; "
        "selling flowers=offering goods=painting a wall",
        "outside the bank; at the corner; in front of the church; near the fountain; next to a parked van",
    ),
    "farm": (
        "farmer=person; shepherd=man; milkmaid=woman; girl=child; hunter=man; boy=child; grandfather=man",
        "picking apples=gathering fruit=mending a fence; feeding the hens=giving food to birds=swimming "
        "in a pond; driving a "
        "tractor=steering a vehicle=riding a horse; digging a ditch=working with a spade=drinking tea; "
        "brushing a pony="
        "caring for an animal=counting coins; eating a sandwich=having a meal=jumping over a wall",
        "behind the barn; in the orchard; by the pond; at the gate; in the meadow",
    ),
    "office": (
        "lawyer=person; secretary=woman; manager=person; clerk=man; student=person; receptionist=woman",
        "typing a letter=writing=eating cake; talking on the phone=having a conversation=hiding under a "
        "desk; printing a "
        "report=using a machine=watering the plants; reading a contract=looking at a document=playing "
        "chess; counting money="
        "working with numbers=opening a window; drawing a chart=making a picture=sleeping on a sofa",
        "in the hall; at the front desk; next to the copier; in the meeting room; on the third floor",
    ),
    "school": (
        "teacher=person; pupil=child; janitor=man; schoolgirl=child; headmistress=woman; visitor=person",
        "drawing a map=making a picture=eating lunch; solving a sum=doing mathematics=throwing snowballs; "
        "cleaning the blackboard=tidying up=reading a poem; feeding the rabbits=caring for "
        "animals=ringing the bell; "
        "singing a song=making music=writing an essay; reading a poem=looking at a text=washing the floor",
        "in the gym; in the first row; in the yard; beside the piano; at the back of the class",
    ),
    "station": (
        "traveller=person; conductor=man; soldier=person; aunt=woman; boy=child; saleswoman=woman",
        "buying a ticket=paying for something=sleeping on a bag; dragging a suitcase=pulling "
        "luggage=eating an "
        "ice cream; studying the timetable=reading=feeding pigeons; hugging a friend=greeting "
        "someone=buying a "
        "newspaper; eating a pretzel=having a snack=climbing a ladder; repairing a clock=fixing "
        "something=dozing",
        "on platform two; under the clock; by the ticket machine; in the waiting room; at the kiosk",
    ),
    "harbour": (
        "sailor=person; fisherman=man; captain=person; diver=person; girl=child; widow=woman; pilot=person",
        "mending a net=repairing something=rowing a boat; hauling a rope=pulling hard=lying in a "
        "hammock; gutting fish="
        "preparing food=singing on the quay; painting a hull=colouring a boat=fixing an engine; watching "
        "the tide=looking at "
        "the water=loading crates; diving for shells=being under water=climbing a mast",
        "on the pier; beside the lighthouse; at the boathouse; on the deck; near the crane",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A premise and a hypothesis; ``relation`` is how the hypothesis was made."""

    premise: str
    hypothesis: str
    label: str
    probabilities: dict[str, float]
    domain: str
    relation: str
    genre: str = "pairs"


def pairs(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Pair]:
    """Return pairs of one setting; ``noise`` replaces the answer by one of the other two."""
    return [pair(Rand(f"pairs/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def pair(rand: Rand, domain: str, noise: float = 0.0) -> Pair:
    """Return one pair."""
    agents, actions, spots = (words(text) for text in _SCENES[domain])
    agent, group = rand.pick(agents).split("=")
    doing, wider, clash = rand.pick(actions).split("=")
    here, elsewhere = rand.sample(spots, 2)
    look, when = rand.pick(_LOOKS), rand.pick(_WHEN)
    scene = {"look": look, "agent": agent, "doing": doing, "here": here, "when": when}
    premise = rand.fill("a [{look} |]{agent} is {doing} {here}[ {when}|]", scene)
    hedged = rand.chance(0.2)
    relation = rand.pick(ANSWERS)
    who = rand.pick((agent, agent, *_GROUPS[group]))
    parts = {"who": who, "agent": agent, "doing": doing, "wider": wider, "clash": clash, "here": here,
             "elsewhere": elsewhere, "unknown": rand.pick(_UNKNOWN)}  # fmt: skip
    hypothesis = rand.fill(_HYPOTHESES[relation], parts)
    sure = _TRUTH[f"{relation} hedged" if hedged and relation != "maybe" else relation]
    probabilities = flip(sure, noise)
    text = f"{rand.pick(_HEDGES)} {premise}" if hedged else premise
    label = rand.weighted(probabilities)
    return Pair(tidy(text) + ".", tidy(hypothesis) + ".", label, probabilities, domain, relation)


_HYPOTHESES = {
    "yes": "[a {who} is {doing}|a {who} is {wider}|a {who} is {here}|somebody is {doing}|"
    "a {who} is {wider} {here}|there is a {who} {here}|a {who} is {doing} {here}|"
    "it is not true that nobody is {doing}]",
    "maybe": "[a {who} is {doing} {unknown}|a {who} is {wider} {unknown}|the {agent} has a twin|"
    "the {agent} is {doing} with a friend nearby|somebody is {doing} {unknown}|the {agent} lives {here}|"
    "the {agent} will soon be {clash}]",
    "no": "[a {who} is {clash}|the {agent} is {clash}|the {agent} is not {doing}|the {agent} is {elsewhere}|"
    "nobody is {doing}|the {agent} is {doing} {elsewhere}|there is nobody {here}|no {who} is {here}]",
}
