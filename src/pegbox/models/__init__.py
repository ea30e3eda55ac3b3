"""Models: loading, the readout, the feature cache, and the embedded model etude."""

from typing import TYPE_CHECKING

from pegbox._lazy import lazy

if TYPE_CHECKING:
    from pegbox.models import processes
    from pegbox.models._base import Base, share
    from pegbox.models._batches import batches, collate
    from pegbox.models._cache import FeatureCache, Features
    from pegbox.models._cross_entropy import chunked_cross_entropy
    from pegbox.models._decode import decode, written_by
    from pegbox.models._encoder import PooledClassifier, score_layer
    from pegbox.models._features import (
        TOKENS_ON_ACCELERATOR,
        TOKENS_PER_BATCH,
        answer_logits,
        answer_tokens,
        extract,
        output_rows,
    )
    from pegbox.models._find import check_folder, check_safetensors, find_model, find_version, pinned
    from pegbox.models._fingerprint import fingerprint
    from pegbox.models._language import IGNORED, language_loss
    from pegbox.models._language_rows import LanguageRows, check_language
    from pegbox.models._loading import Dtype, load, number_format, tokenizer
    from pegbox.models._mode import in_mode
    from pegbox.models._options import option_logprobs, read_texts
    from pegbox.models._quantised import (
        QUANTISE_BLOCK,
        Quantise,
        check_quantise,
        divided_layers,
        plain_layers,
        quantised_loading,
    )
    from pegbox.models._quiet import quiet_libraries, quietly
    from pegbox.models._readout import (
        POSITIONS,
        Answers,
        narrowed,
        output_layer,
        output_scale,
        output_tail,
        output_tail_slope,
        read,
        rows_of,
        unwrapped,
        watched,
    )
    from pegbox.models._sequences import word_logprobs
    from pegbox.models._similar import encode
    from pegbox.models._trunk import Trunk, blocks_of, frozen_trunk, without_dropout
    from pegbox.models._vocabulary import class_means, slot_logits


__all__ = [
    "IGNORED",
    "POSITIONS",
    "QUANTISE_BLOCK",
    "TOKENS_ON_ACCELERATOR",
    "TOKENS_PER_BATCH",
    "Answers",
    "Base",
    "Dtype",
    "FeatureCache",
    "Features",
    "LanguageRows",
    "PooledClassifier",
    "Quantise",
    "Trunk",
    "answer_logits",
    "answer_tokens",
    "batches",
    "blocks_of",
    "check_folder",
    "check_language",
    "check_quantise",
    "check_safetensors",
    "chunked_cross_entropy",
    "class_means",
    "collate",
    "decode",
    "divided_layers",
    "encode",
    "extract",
    "find_model",
    "find_version",
    "fingerprint",
    "frozen_trunk",
    "in_mode",
    "language_loss",
    "load",
    "narrowed",
    "number_format",
    "option_logprobs",
    "output_layer",
    "output_rows",
    "output_scale",
    "output_tail",
    "output_tail_slope",
    "pinned",
    "plain_layers",
    "processes",
    "quantised_loading",
    "quiet_libraries",
    "quietly",
    "read",
    "read_texts",
    "rows_of",
    "score_layer",
    "share",
    "slot_logits",
    "tokenizer",
    "unwrapped",
    "watched",
    "without_dropout",
    "word_logprobs",
    "written_by",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "POSITIONS": "pegbox.models._readout",
        "Answers": "pegbox.models._readout",
        "Base": "pegbox.models._base",
        "FeatureCache": "pegbox.models._cache",
        "Features": "pegbox.models._cache",
        "PooledClassifier": "pegbox.models._encoder",
        "answer_logits": "pegbox.models._features",
        "answer_tokens": "pegbox.models._features",
        "batches": "pegbox.models._batches",
        "check_safetensors": "pegbox.models._find",
        "class_means": "pegbox.models._vocabulary",
        "collate": "pegbox.models._batches",
        "decode": "pegbox.models._decode",
        "encode": "pegbox.models._similar",
        "extract": "pegbox.models._features",
        "find_model": "pegbox.models._find",
        "fingerprint": "pegbox.models._fingerprint",
        "in_mode": "pegbox.models._mode",
        "load": "pegbox.models._loading",
        "narrowed": "pegbox.models._readout",
        "option_logprobs": "pegbox.models._options",
        "read_texts": "pegbox.models._options",
        "output_layer": "pegbox.models._readout",
        "output_scale": "pegbox.models._readout",
        "output_tail": "pegbox.models._readout",
        "output_tail_slope": "pegbox.models._readout",
        "quiet_libraries": "pegbox.models._quiet",
        "read": "pegbox.models._readout",
        "rows_of": "pegbox.models._readout",
        "score_layer": "pegbox.models._encoder",
        "share": "pegbox.models._base",
        "Trunk": "pegbox.models._trunk",
        "blocks_of": "pegbox.models._trunk",
        "without_dropout": "pegbox.models._trunk",
        "frozen_trunk": "pegbox.models._trunk",
        "slot_logits": "pegbox.models._vocabulary",
        "output_rows": "pegbox.models._features",
        "find_version": "pegbox.models._find",
        "pinned": "pegbox.models._find",
        "tokenizer": "pegbox.models._loading",
        "IGNORED": "pegbox.models._language",
        "chunked_cross_entropy": "pegbox.models._cross_entropy",
        "language_loss": "pegbox.models._language",
        "LanguageRows": "pegbox.models._language_rows",
        "check_language": "pegbox.models._language_rows",
        "unwrapped": "pegbox.models._readout",
        "watched": "pegbox.models._readout",
        "word_logprobs": "pegbox.models._sequences",
        "written_by": "pegbox.models._decode",
        "TOKENS_ON_ACCELERATOR": "pegbox.models._features",
        "TOKENS_PER_BATCH": "pegbox.models._features",
        "check_folder": "pegbox.models._find",
        "Dtype": "pegbox.models._loading",
        "number_format": "pegbox.models._loading",
        "QUANTISE_BLOCK": "pegbox.models._quantised",
        "Quantise": "pegbox.models._quantised",
        "check_quantise": "pegbox.models._quantised",
        "divided_layers": "pegbox.models._quantised",
        "plain_layers": "pegbox.models._quantised",
        "quantised_loading": "pegbox.models._quantised",
        "quietly": "pegbox.models._quiet",
    },
    submodules=("processes",),
)
