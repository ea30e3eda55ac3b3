"""The world that etude was raised in: seeded English text whose exact truth is known."""

from pegbox.models.etude.world._documents import (
    DOMAINS,
    GENRES,
    HELD_BACK,
    Document,
    documents,
    written,
)
from pegbox.models.etude.world._instructions import Instruction, instructions
from pegbox.models.etude.world._names import TAGS, Names, names
from pegbox.models.etude.world._news import TOPICS, News, news
from pegbox.models.etude.world._pairs import ANSWERS, Pair, pairs
from pegbox.models.etude.world._passages import Passage, passages
from pegbox.models.etude.world._records import Record, records
from pegbox.models.etude.world._replies import MARKERS, Reply, politeness, replies
from pegbox.models.etude.world._reviews import LABELS, Opinion, Review, reviews

__all__ = [
    "ANSWERS",
    "DOMAINS",
    "GENRES",
    "HELD_BACK",
    "LABELS",
    "MARKERS",
    "TAGS",
    "TOPICS",
    "Document",
    "Instruction",
    "Names",
    "News",
    "Opinion",
    "Pair",
    "Passage",
    "Record",
    "Reply",
    "Review",
    "documents",
    "instructions",
    "names",
    "news",
    "pairs",
    "passages",
    "politeness",
    "records",
    "replies",
    "reviews",
    "written",
]
