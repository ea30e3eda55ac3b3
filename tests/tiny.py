"""Tiny random models of real architectures, each with a tokenizer, as folders on disk."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

import pegbox
from pegbox.data import Examples
from pegbox.models import Base

# Threads cost such small products more than they save, by far on a busy machine.
torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

VOCABULARY = 512
TEXT = [
    "The kettle was great and the tea was hot.",
    "It was terrible, the screen broke after a day and nobody answered.",
    "A good hotel with a bad breakfast, but the staff said yes to everything, maybe no.",
    "Question: is the answer positive or negative? Label: okay. Answer: yes. Option: A",
] * 8
WORDS = " ".join(TEXT[:4]).replace(".", "").replace(",", "").split()
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
WINDOW = {"sliding_window": 16}
CAUSAL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma3_text": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "final_logit_softcapping": 4.0,
        "sliding_window": 16,
    },
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "final_logit_softcapping": 4.0,
        "sliding_window": 16,
    },
    "mistral": {"num_key_value_heads": 2, "head_dim": 8, **WINDOW},
    "gpt2": {"n_inner": 48},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
    "bloom": {},
}
MASKED: dict[str, dict[str, Any]] = {"bert": {}, "roberta": {"type_vocab_size": 1, "pad_token_id": 1}}
ENCODERS: dict[str, dict[str, Any]] = {"bert": {}}
# T5 has no absolute positions, and its first version scales what enters the tied output layer.
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {
        "num_decoder_layers": 2,
        "d_ff": 48,
        "d_kv": 8,
        "decoder_start_token_id": 1,
        "intermediate_size": None,
        "max_position_embeddings": None,
    },
    "bart": {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    },
}
FAMILIES = {"causal": CAUSAL, "masked": MASKED, "encoder": ENCODERS, "encoder-decoder": ENCODER_DECODERS}


@cache
def trained_bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer.to_str()


@cache
def sentinel_tokenizer() -> PreTrainedTokenizerFast:
    """As T5's: a bar for the space, also before the first word, an end token, and sentinels."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    sentinels = ["<extra_id_0>", "<extra_id_1>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<pad>", "</s>", *sentinels],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=sentinels,
        model_input_names=["input_ids", "attention_mask"],
    )


def tokenizer_for(kind: str, architecture: str = "") -> PreTrainedTokenizerFast:
    if kind == "encoder-decoder" and architecture != "bart":
        return sentinel_tokenizer()
    tokenizer = Tokenizer.from_str(trained_bpe())
    if kind == "causal":
        single, special = "<s> $A", [("<s>", 0)]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True),
        # As RoBERTa's; a BERT encoder of pairs also wants the types.
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] * (kind == "encoder"))],
    )


def save_tiny(
    folder: Path, architecture: str, kind: str, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a random model of an architecture and its tokenizer to ``folder``."""
    settings = {**SMALL, **FAMILIES[kind][architecture]}
    known = {name: value for name, value in settings.items() if value is not None}
    config = AutoConfig.for_model(architecture, **known)
    auto: Any = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "encoder": AutoModel,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config)
        for name, tensor in model.named_parameters():
            # Random biases and norms, so that a forgotten one shows; larger weights make logits differ.
            if tensor.dim() == 1:
                torch.nn.init.normal_(tensor, 1.0 if "norm" in name.lower() or "ln_" in name else 0.0, 0.3)
            else:
                # What the scale of T5's output takes away is given back here, as its own initial values do.
                torch.nn.init.normal_(tensor, 0.0, 0.8 if name == "shared.weight" else 0.15)
    model.to(dtype).save_pretrained(folder)
    tokenizer_for(kind, architecture).save_pretrained(folder)
    return folder


@cache
def tiny_folder(architecture: str, kind: str) -> Path:
    """A folder with a tiny model, made once per test session; tests that change it copy it first."""
    root = _root()
    return save_tiny(Path(root.name) / f"{kind}-{architecture}", architecture, kind)


@cache
def tiny_base(architecture: str, kind: str = "causal") -> Base:
    """A tiny model as Pegbox loads it; nothing may change it."""
    return pegbox.load(tiny_folder(architecture, kind))


@cache
def _root() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="pegbox-tiny-")


def rows_of_length(words: Sequence[int], *, labels: Sequence[str] | None = None) -> Examples:
    """One text per number, with that many words, all different."""
    texts = tuple(
        " ".join(WORDS[(7 * row + 3 * at) % len(WORDS)] for at in range(count))
        for row, count in enumerate(words)
    )
    found = None if labels is None else tuple(labels)
    return Examples("tiny.csv", {"text": texts}, found, tuple(range(1, len(words) + 1)))
