"""Files and hub data sets to rows: reading, guessing columns, the data doctor, seeded splits."""

from pegbox.data._bad import Dropped
from pegbox.data._columns import Columns, find_columns
from pegbox.data._conversation_columns import ConversationColumns, find_conversation_columns
from pegbox.data._conversation_doctor import check_conversations
from pegbox.data._conversations import Conversations, conversations, from_prompts
from pegbox.data._doctor import check
from pegbox.data._examples import Examples, examples, from_texts
from pegbox.data._findings import Finding, Findings
from pegbox.data._general_text import AUTO, GeneralText, read_general_text
from pegbox.data._messages import Message
from pegbox.data._preference_columns import (
    Dialogue,
    PreferenceColumns,
    find_preference_columns,
    is_ranked,
)
from pegbox.data._preference_doctor import check_preferences
from pegbox.data._preferences import Preferences, from_answers, in_turns, preferences
from pegbox.data._questions import (
    AnswerKind,
    ChoiceColumns,
    Questions,
    find_choice_columns,
    from_questions,
    questions,
    renamed,
)
from pegbox.data._read import check_source, read
from pegbox.data._rows import Rows
from pegbox.data._sentences import Sentences, TagColumns, find_tag_columns, from_words, sentences
from pegbox.data._shape_doctor import check_questions, check_sentences
from pegbox.data._split import split, take
from pegbox.data._table import FORMATS, Table, rows_text
from pegbox.data._text import text_key

__all__ = [
    "AUTO",
    "FORMATS",
    "AnswerKind",
    "ChoiceColumns",
    "Columns",
    "ConversationColumns",
    "Conversations",
    "Dialogue",
    "Dropped",
    "Examples",
    "Finding",
    "Findings",
    "GeneralText",
    "Message",
    "PreferenceColumns",
    "Preferences",
    "Questions",
    "Rows",
    "Sentences",
    "Table",
    "TagColumns",
    "check",
    "check_conversations",
    "check_preferences",
    "check_questions",
    "check_sentences",
    "check_source",
    "conversations",
    "examples",
    "find_choice_columns",
    "find_columns",
    "find_conversation_columns",
    "find_preference_columns",
    "find_tag_columns",
    "from_answers",
    "from_prompts",
    "from_questions",
    "from_texts",
    "from_words",
    "in_turns",
    "is_ranked",
    "preferences",
    "questions",
    "read",
    "read_general_text",
    "renamed",
    "rows_text",
    "sentences",
    "split",
    "take",
    "text_key",
]
