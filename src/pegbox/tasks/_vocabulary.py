from collections.abc import Callable, Iterator, Sequence

from pegbox.tasks._prompt import Prompt
from pegbox.tasks._tokens import continuation


def answer_word(prompt: Prompt) -> Callable[[int], str | None]:
    """Tell which whole word a token is when it alone fills the answer slot; ``None`` where it is none.

    A word is made of letters alone, of two at least in scripts that have capitals, and the tokenizer says it
    after the template by this very token: so pieces that continue a word (``##ing``, ``ing`` without its
    space) are none. A piece that begins words cannot be told from a word by the vocabulary.

    Args:
        prompt: The task, made ready for a model with an output layer.
    """
    tokenizer, template = prompt.tokenizer, prompt.template
    # Without a sentinel the answer of an encoder-decoder begins the decoder's text.
    opens = prompt.kind == "encoder-decoder" and prompt.sentinel is None
    before = "" if opens else template.before(dict.fromkeys(template.fields, "x"))
    gap = "" if opens else template.gap()
    special = set(tokenizer.all_special_ids)

    def word_of(token: int) -> str | None:
        piece = None if token in special else tokenizer.convert_ids_to_tokens([token])[0]
        word = tokenizer.convert_tokens_to_string([piece]).strip() if piece else ""
        short = len(word) < 2 and word.lower() != word.upper()
        if not word.isalpha() or short:
            return None
        return word if continuation(tokenizer, before, gap + word) == [token] else None

    return word_of


def first_words(
    order: Sequence[int], word_of: Callable[[int], str | None], count: int
) -> Iterator[tuple[int, str]]:
    """The first ``count`` tokens of an order that are words, with their words."""
    found = 0
    for token in order:
        word = word_of(token)
        if word is not None:
            yield token, word
            found += 1
            if found == count:
                return
