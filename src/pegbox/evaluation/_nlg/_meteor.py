import io
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts, library, mean

# Debian's package wordnet-base.
_SHARED = "/usr/share/wordnet"
_NO_WORDNET = (
    "no WordNet is found in nltk's data, $WNSEARCHDIR or /usr/share/wordnet: "
    "python -m nltk.downloader wordnet, or apt install wordnet-base"
)
_LEXNAMES = 45


def meteor(texts: Texts) -> Measured:
    """Mean METEOR by nltk over lower-cased 13a tokens, the best reference of each row, 0 to 1.

    nltk's defaults: exact, stem and WordNet matches, alpha 0.9, beta 3, gamma 0.5. It is the metric of 2007,
    not METEOR 1.5 with its paraphrase tables.
    Source: Lavie and Agarwal 2007.

    Raises:
        MissingError: a library is not installed, or there is no WordNet.
    """
    scorer = library("nltk.translate.meteor_score")
    predictions, references = texts.tokens
    wordnet = _Synonyms(_wordnet())
    pairs = zip(predictions, references, strict=True)
    return Measured({"meteor": mean([scorer.meteor_score(row, own, wordnet=wordnet) for own, row in pairs])})


class _Synonyms:
    """WordNet as METEOR asks it, each word looked up once."""

    def __init__(self, reader: Any) -> None:
        self.synsets = lru_cache(maxsize=None)(reader.synsets)


def _wordnet() -> Any:
    """nltk's reader of the first WordNet that is found.

    Raises:
        MissingError: there is none.
    """
    corpus = library("nltk.corpus")
    try:
        corpus.wordnet.ensure_loaded()
    except LookupError:
        pass
    else:
        return corpus.wordnet
    for place in (os.environ.get("WNSEARCHDIR", ""), _SHARED):
        if place and (Path(place) / "data.noun").is_file():
            try:
                return _reader(str(Path(place).resolve()))
            except (LookupError, OSError, ValueError) as error:
                raise MissingError(f"the WordNet in {place} cannot be read: {error}") from error
    raise MissingError(_NO_WORDNET)


@lru_cache(maxsize=2)
def _reader(folder: str) -> Any:
    base: Any = library("nltk.corpus.reader.wordnet").WordNetCorpusReader

    class Reader(base):
        def open(self, file: str) -> Any:
            # Debian leaves this file out. It names the files a synset was written in; METEOR asks for none.
            if file == "lexnames" and not (Path(folder) / file).exists():
                return io.StringIO("".join(f"{number:02d} unnamed 0\n" for number in range(_LEXNAMES)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Maps to other versions serve other languages, and need nltk's own copy."""

    paths = library("nltk.data").path
    if folder not in paths:
        # nltk reads only below the folders on this list, and adding to it is its way to allow another.
        paths.append(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions")
        return Reader(folder, None)
