"""The two architectures, a few million parameters each."""

import math

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pegbox.models.etude.pretrain._tokenizer import CONTEXT

KINDS = ("causal", "masked")


def build_model(
    kind: str, tokenizer: PreTrainedTokenizerFast, seed: int, hidden: int = 256, layers: int = 4
) -> PreTrainedModel:
    """Return a freshly initialised model, tied input and output embeddings, no dropout.

    Args:
        kind: ``causal`` (Llama) or ``masked`` (BERT).
        tokenizer: Gives vocabulary size and special tokens.
        seed: Seed of the initial weights.
        hidden: Width; 64 per attention head.
        layers: Depth.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "causal":
            return LlamaForCausalLM(_llama(tokenizer, hidden, layers))
        model = BertForMaskedLM(_bert(tokenizer, hidden, layers))
    positions = model.bert.embeddings.position_embeddings.weight
    # Learned positions start as sinusoids, in which "the token before" is one rotation for all positions.
    positions.data.copy_(_sinusoids(*positions.shape) * model.config.initializer_range * math.sqrt(2.0))
    return model


def _sinusoids(positions: int, width: int) -> torch.Tensor:
    """Return Vaswani et al. (2017), section 3.5: (positions, width), values between -1 and 1."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _llama(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 64),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _bert(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        max_position_embeddings=CONTEXT,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
