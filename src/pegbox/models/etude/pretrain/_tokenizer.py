"""Byte-level BPE tokenizers, trained on the world's own text."""

from itertools import islice

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pegbox.models.etude.world import documents

VOCABULARY = 4096
CONTEXT = 512
SINGLE_WORDS = (
    " great",
    " terrible",
    " good",
    " bad",
    " wonderful",
    " awful",
    " excellent",
    " poor",
    " fantastic",
    " dreadful",
    " positive",
    " negative",
    " yes",
    " no",
    " maybe",
    " Yes",
    " No",
    " Maybe",
    " true",
    " false",
    " sport",
    " business",
    " weather",
    " science",
    " polite",
    " rude",
    " neutral",
)
"""Label words that must be one token each."""

_SPECIALS = {
    "causal": {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"},
    "masked": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
}


def build_tokenizer(kind: str, seed: int, rows: int = 40_000) -> PreTrainedTokenizerFast:
    """Train a tokenizer of 4096 tokens; every byte is in the alphabet, so any text can be said.

    Args:
        kind: ``causal`` (begins with ``<|bos|>``) or ``masked`` (``[CLS] a [SEP] b [SEP]``, two token types).
        seed: Seed of the world's training documents.
        rows: How many documents to learn from.
    """
    # The mask takes the space before it, because the answers begin with theirs: "It was [MASK]." -> " great".
    added = {
        role: AddedToken(token, special=True, normalized=False, lstrip=role == "mask_token")
        for role, token in _SPECIALS[kind].items()
    }
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(added.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [document.text for document in islice(documents(seed, "train"), rows)]
    # A label word is learned as one token only where it is common; said often alone, it surely is.
    texts.extend(word for word in SINGLE_WORDS for _ in range(rows // 20))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _post_processor(tokenizer, kind)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "masked" else []),
        **added,
    )
    wrapped.padding_side = "left" if kind == "causal" else "right"
    return wrapped


def _post_processor(tokenizer: Tokenizer, kind: str) -> processors.TemplateProcessing:
    if kind == "causal":
        bos = "<|bos|>"
        return processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
