"""Names and words that several genres share."""

from pegbox.models.etude.world._grammar import Rand, words

FIRST = words(
    "Anna; Ben; Clara; David; Elena; Felix; Grace; Henry; Ingrid; Jonas; Katya; Leon; Mara; Nils; Olga; "
    "Pablo; "
    "Quentin; Rosa; Samir; Tessa; Umar; Vera; Wanda; Xavier; Yusuf; Zoe; Amina; Boris; Chloe; Dmitri; "
    "Edith; Farid; "
    "Greta; Hugo; Iris; Jamal; Kenji; Lucia; Marta; Noor; Oscar; Priya; Rafael; Sofia; Tomas; Ursula; "
    "Viktor; Yara"
)
SURNAME = words(
    "Abbott; Brandt; Castillo; Dubois; Eriksen; Falk; Garcia; Hughes; Ivanov; Jensen; Keller; Lindqvist; "
    "Moreau; "
    "Novak; Okafor; Petrov; Quinn; Rossi; Sato; Tanaka; Ueda; Vogel; Weber; Yilmaz; Zeller; Adeyemi; "
    "Bianchi; "
    "Carver; Delgado; Engel; Fischer; Grant; Haddad; Iversen; Jung; Kaplan; Larsen; Mercer; Nakamura; Olsen"
)
_STEM = words(
    "Ash; Bram; Cold; Dun; Elm; Fair; Glen; Hart; King; Lang; Mill; North; Oak; Pem; Red; Stan; Thorn; "
    "Wake; West; "
    "Win; Black; Clay; Darn; Fern; Hol; Marl; Rook; Sel; Tarn; Brook"
)
_PLACE_END = words("ford; ham; ton; bury; field; mouth; stead; wick; port; by; haven; dale; well; bridge")
_PERSON_END = words("worth; man; son; ley; well; den; ridge; croft; more; kin")
COUNTRY = words(
    "Norway; Chile; Kenya; Portugal; Vietnam; Canada; Iceland; Peru; Ghana; Austria; Japan; Morocco; Estonia"
)
MONTH = words(
    "January; February; March; April; May; June; July; August; September; October; November; December"
)
DAY = words("Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday")
COLOUR = words("red; blue; green; yellow; white; black; grey; brown; orange; purple; silver; golden")
JOB = words(
    "teacher; nurse; baker; carpenter; painter; lawyer; farmer; pilot; chemist; librarian; engineer; "
    "tailor; singer; "
    "gardener; journalist; surgeon; plumber; translator; sailor; judge"
)
NUMBER = words("two; three; four; five; six; seven; eight; nine; ten; eleven; twelve")


def person(rand: Rand) -> str:
    """Return a full name."""
    return f"{rand.pick(FIRST)} {surname(rand)}"


def surname(rand: Rand) -> str:
    """Return a family name, listed or composed."""
    return rand.pick(SURNAME) if rand.chance(0.5) else rand.pick(_STEM) + rand.pick(_PERSON_END)


def place(rand: Rand) -> str:
    """Return a town, or now and then a country."""
    if rand.chance(0.15):
        return rand.pick(COUNTRY)
    return town(rand)


def town(rand: Rand) -> str:
    """Return a composed town name."""
    prefix = rand.pick(("Upper ", "Port ", "New ", "Saint ")) if rand.chance(0.1) else ""
    return prefix + rand.pick(_STEM) + rand.pick(_PLACE_END)


_FIRM = words("Industries; Motors; Foods; Bank; Brothers; Shipping; Media; Labs")
_PUBLIC = words("United; Rovers; University; Council; Hospital; Museum; College")
_BRAND = words("Northern; Blue; Silver; First; Open; Eastern; Royal; Green; Atlas; Harbour")
_BODY = words("Energy; Airways; Trust; Insurance; Institute; Theatre; Press; Union")
_COINED = words("Novatek; Helion; Quantara; Solvix; Orbis; Fennex; Lumina; Zentra; Kestrel; Arcadis; Vireo")


def organisation(rand: Rand) -> str:
    """Return a company, club, school or authority."""
    kind = rand.integer(0, 3)
    if kind == 0:
        return f"{surname(rand)} {rand.pick(_FIRM)}"
    if kind == 1:
        return f"{place(rand)} {rand.pick(_PUBLIC)}"
    if kind == 2:
        return f"{rand.pick(_BRAND)} {rand.pick(_BODY)}"
    return rand.pick(_COINED)
