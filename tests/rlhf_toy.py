"""A model so small that all its answers can be listed, and what the best policy on it would be."""

import copy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pegbox.models import Base, PooledClassifier
from pegbox.rlhf import Aligner, Alignment, Answered, Prompts, Roles

WORDS, END, MOST = 5, 5, 3
PROMPTS = Prompts(((0, 1), (2, 3, 4), (4,), (1, 1)), ("ab", "cde", "e", "bb"))


def answers() -> list[tuple[int, ...]]:
    """All 156 answers: words up to an end, or as many as there may be."""
    found: list[tuple[int, ...]] = []
    for length in range(MOST):
        found += [(*words, END) for words in product(range(WORDS), repeat=length)]
    return found + list(product(range(WORDS), repeat=MOST))


def base_of(seed: int = 0, *, end: float = 0.0) -> Base:
    """A random Llama, to which the end is about as likely as a word; ``end`` is added to its logit."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    if end:
        model.lm_head.bias = nn.Parameter(torch.tensor([0.0] * WORDS + [end]))
    model.eval().requires_grad_(False)
    tokenizer: Any = SimpleNamespace(pad_token_id=0, eos_token_id=END)
    return Base("toy", "causal", model, tokenizer, f"toy {seed}", 32)


def table(seed: int = 0) -> dict[tuple[int, ...], float]:
    """A score for each answer: a weight per word and place, and a surprise of its own."""
    dice = torch.Generator().manual_seed(seed)
    weights = torch.randn(MOST, WORDS + 1, generator=dice)
    own = torch.randn(len(answers()), generator=dice) * 0.3
    return {
        answer: float(sum(weights[at, word] for at, word in enumerate(answer)) + own[place])
        for place, answer in enumerate(answers())
    }


def paid_ends() -> dict[tuple[int, ...], float]:
    """Scores of which the highest is paid for ending right after the word 2.

    To go on from there with the word 3 pays a third of that and with another word a sixth, whatever follows;
    all else pays nothing.
    """
    pays = {(2, END): 3.0, (2, 3): 1.0}
    return {answer: pays.get(answer[:2], 0.5 if answer[0] == 2 else 0.0) for answer in answers()}


@dataclass(frozen=True)
class Table:
    scores: dict[tuple[int, ...], float]

    def __call__(self, rows: Answered, *_: Any) -> Tensor:
        return torch.tensor([self.scores[answer] for answer in rows.answers], dtype=torch.float64)


@torch.no_grad()
def logs(model: Any, prompt: tuple[int, ...]) -> Tensor:
    """Log-probability of every answer, (answers,), by plain forward passes."""
    rows = answers()
    ids = torch.zeros(len(rows), len(prompt) + MOST, dtype=torch.long)
    for line, answer in enumerate(rows):
        ids[line, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
    said = model(input_ids=ids).logits.double().log_softmax(-1)
    found = []
    for line, answer in enumerate(rows):
        places = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
        found.append(sum(said[line, at, token] for at, token in zip(places, answer, strict=True)))
    return torch.stack(found)  # type: ignore[arg-type]


def aligner(
    folder: Path,
    seed: int = 0,
    *,
    scores: Any = None,
    output: bool = True,
    base: Base | None = None,
    **settings: Any,
) -> Aligner:
    base = base or base_of()
    policy: Any = copy.deepcopy(base.model).requires_grad_(True)
    # An output layer that is trained takes another way through the loss; no policy that align makes has one.
    policy.lm_head.requires_grad_(output)
    value = None
    if settings.get("algorithm", "ppo") == "ppo":
        trunk = copy.deepcopy(base.model.model).requires_grad_(True)  # type: ignore[union-attr, arg-type]
        value = PooledClassifier(trunk, "none", 1).requires_grad_(True)  # type: ignore[arg-type]
    chosen: dict[str, Any] = {
        "steps": 60,
        "batch_size": 128,
        "minibatch_size": 32,
        "epochs": 2,
        "learning_rate": 3e-3,
        "beta": 0.3,
        "max_tokens": MOST,
        "seed": seed,
        **settings,
    }
    roles = Roles(base, policy, base.model, value, scores or Table(table()))
    return Aligner(
        roles=roles,
        prompts=PROMPTS,
        held=Prompts((), ()),
        settings=Alignment(**chosen),
        stops=[END],
        decode=lambda rows: [" ".join(map(str, row)) for row in rows],
        folder=folder,
        key={"base": "toy"},
        say=lambda _: None,
    )


def share(run: Aligner, policy: nn.Module | None = None) -> float:
    """Of what the best policy gains over the reference (reward less beta times divergence), its share."""
    beta, penalty = run.settings.beta, run.settings.missing_end_penalty
    scores: Any = run.roles.reward
    raw = torch.tensor([scores.scores[answer] for answer in answers()], dtype=torch.float64)
    ended = torch.tensor([answer[-1] == END for answer in answers()])
    reward = run.scale.standard(raw) - penalty * (~ended).double()
    gained = best = 0.0
    for prompt in run.prompts.ids:
        before = logs(run.roles.reference, prompt)
        now = logs(policy or run.roles.policy, prompt)
        start = float((before.exp() * reward).sum())
        gained += float((now.exp() * (reward - beta * (now - before))).sum()) - start
        best += float(beta * torch.logsumexp(before + reward / beta, 0)) - start
    return gained / best
