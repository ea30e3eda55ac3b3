"""Preferences learnt by the policy itself, without a reward model: direct preference optimisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.data import Dialogue, Message, Preferences, read
from pegbox.errors import UsageError, is_number
from pegbox.evaluation import Estimate, wilson
from pegbox.methods import LoRA, Method
from pegbox.models import Base, batches
from pegbox.rlhf import Answered, Batch, logprobs, preference_loss
from pegbox.tasks import GeneratePrompt, Prefer, PreferPrompt, TooLong
from pegbox.training import History, Settings, hush, resolve_precision, tell, train
from pegbox.tuning._align import adapter_digest, policy_of
from pegbox.tuning._claim import claimed
from pegbox.tuning._hold_out import stopped_by
from pegbox.tuning._once import Once
from pegbox.tuning._prompts_asked import told, writes
from pegbox.tuning._run_folder import check_resumable
from pegbox.tuning._seen import row_digests
from pegbox.tuning._training import Training
from pegbox.tuning._tuned import Cost, Tuned

# A tenth of the rate that LoRA learns answers at: pairs say less, and the loss has no floor.
RATE = 1e-4
TOKENS_PER_BATCH = {"cpu": 4096}
TOKENS_ON_ACCELERATOR = 32768


@dataclass(frozen=True)
class DPO:
    """How a policy is tuned on pairs directly, see :func:`dpo`.

    Args:
        beta: Weight of the divergence, above 0.
        training: How to train.
        max_tokens: Most tokens of an answer that it is judged by.
        seed: Of orders and answers.
    """

    beta: float = 0.1
    training: Training | None = None
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not (is_number(self.beta) and self.beta > 0):
            raise UsageError(
                "beta is the weight of the divergence and cannot be this",
                where=f"beta {self.beta!r}",
                expected="a number above 0, such as 0.1",
                fix="leave it out for 0.1",
            )

    def settings(self, method: Method) -> Settings:
        """The engine's settings.

        Raises:
            UsageError: For values that cannot be.
        """
        given = self.training or Training()
        rate = RATE if given.learning_rate is None else given.learning_rate
        return replace(given, learning_rate=rate).settings(method, self.seed)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)


class PairedAnswers:
    """Pairs of answers, trained by -log sigma(beta (log-ratio of chosen - log-ratio of rejected)).

    Args:
        base: The base.
        chosen: Prompts with the preferred answers.
        rejected: The same prompts with the other answers.
        beta: Weight of the divergence.
        reference: Summed log-probabilities (pairs, 2) of both answers under the reference.
    """

    def __init__(
        self, base: Base, chosen: Answered, rejected: Answered, beta: float, reference: Tensor
    ) -> None:
        self._base, self._pairs, self._beta, self._reference = base, (chosen, rejected), beta, reference
        self.lengths = [max(pair) for pair in zip(chosen.lengths, rejected.lengths, strict=True)]

    def __len__(self) -> int:
        return len(self._pairs[0])

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Chosen answers first, then rejected ones, (2 x pairs, tokens), and what the reference says."""
        chosen, rejected = (part.select(indices) for part in self._pairs)
        whole = Answered(
            (*chosen.prompts, *rejected.prompts),
            (*chosen.answers, *rejected.answers),
            (*chosen.finished, *rejected.finished),
        )
        batch = Batch.of(whole, self._base.pad, torch.device("cpu"))
        known = self._reference[list(indices)]
        return {
            "input_ids": batch.ids,
            "real": batch.real,
            "targets": batch.targets,
            "mask": batch.mask,
            "reference": known.T.flatten(),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed loss and the number of pairs."""
        whole = Batch(batch["input_ids"], batch["real"], batch["targets"], batch["mask"])
        said = logprobs(model, whole).sum(1)
        chosen, rejected = said.chunk(2)
        before, other = batch["reference"].to(said.dtype).chunk(2)
        losses = preference_loss(chosen, rejected, before, other, self._beta)
        return losses.float().sum(), batch["targets"].new_tensor(len(losses))

    def favoured(self, module: nn.Module, *, bf16: bool) -> Estimate:
        """Share of pairs whose chosen answer gained more log-probability over the reference than the other.

        A tie counts half; the interval is Wilson's.
        """
        moved = _both(module, self._base, self._pairs, bf16=bf16) - self._reference
        margins = moved[:, 0] - moved[:, 1]
        right = float((margins > 0).sum()) + 0.5 * float((margins == 0).sum())
        return Estimate(right / len(self), *wilson(right, len(self)))


def dpo(
    sft: Tuned | str | Path,
    rows: Preferences | str | Path,
    *,
    beta: float = 0.1,
    valid: Preferences | str | Path | None = None,
    training: Training | None = None,
    adapter: LoRA | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    texts: Sequence[str] = (),
    dialogue: Dialogue = "none",
    on_bad: str = "error",
    too_long: TooLong = "shorten",
    say: Callable[[str], None] = tell,
    **options: Any,
) -> Tuned:
    """Tune a policy on pairs of answers directly (Rafailov et al. 2023), held to where it starts.

    Args:
        sft: The tuned model to start from, which is the reference; as for :func:`align`.
        rows: Preferences: rows, file or hub id.
        beta: Weight of the divergence, above 0.
        valid: Preferences that choose where training stops; else a share of the rows.
        training: How to train; the learning rate is 1e-4 where it says none.
        adapter: LoRA of the policy where the tuned model has no adapter of its own.
        folder: Where checkpoints go; needed to resume.
        resume: Continue from the newest checkpoint in ``folder``.
        seed: Of the order of the rows.
        texts: Columns of prompt, chosen and rejected answer in a file; guessed when not given.
        dialogue: How prompts of ``Human: ... Assistant: ...`` in a file are read, see :class:`pegbox.Prefer`.
        on_bad: ``"error"`` or ``"drop"`` for rows of a file that cannot be used.
        too_long: What to do with rows that do not fit.
        say: Receives lines for the user.
        options: As for :meth:`Tuned.load`, where a folder is given.

    Raises:
        UsageError: For a beta that is not above 0.
        CapabilityError: For a model that writes no text.
        InputError: For rows that cannot be used.
    """
    how = DPO(beta, training, seed=seed)
    if resume:
        check_resumable(folder)
    how.settings(adapter or LoRA())  # what cannot be is told before any work
    say = Once.of(say)
    start = sft if isinstance(sft, Tuned) else Tuned.load(sft, say=say, **options)
    prompt, base = writes(start), start.base
    reading = partial(read_pairs, dialogue=dialogue, texts=texts, on_bad=on_bad, say=say)
    own, others = stopped_by(reading(rows), None if valid is None else reading(valid), seed, say)
    method, policy = policy_of(start, adapter or LoRA(), seed, say)
    count = sum(value.numel() for value in policy.parameters() if value.requires_grad)
    settings = how.settings(method)
    bf16 = resolve_precision(settings.precision, base.device) == "bf16"
    parts: list[PairedAnswers] = []
    for part in filter(None, (own, others)):
        sides = paired(prompt, part, too_long, say)
        before = _both(start.network, base, sides, bf16=bf16)
        parts.append(PairedAnswers(base, *sides, float(beta), before))
    key = {
        "base": base.fingerprint,
        "method": f"dpo {method.name} {method.options()} beta {beta:g}",
        "start": adapter_digest(start),
        "rows": own.digest(),
        "validation rows": "none" if others is None else others.digest(),
        "too_long": too_long,
    }
    started = time.perf_counter()
    history = _trained(policy, parts, key, folder, settings=settings, resume=resume, say=say)
    module = method.trained(base, policy.requires_grad_(False).eval())
    seconds = max(time.perf_counter() - started, history.seconds)
    stage = {"beta": float(beta), "pairs": len(own), **_favoured(module, parts[1:], say, bf16=bf16)}
    details = {"dpo": stage, "history": history.to_json(), "seed": seed}
    return replace(
        start,
        method=method,
        module=module,
        cost=Cost(seconds, count, len(own)),
        details={**start.details, **details},
        training_rows=start.training_rows | frozenset(row_digests(own)),
        validation_rows=start.validation_rows | frozenset(row_digests(others) if others else ()),
        weights=False,
        origin=None,
        say=say,
    )


def _trained(
    policy: nn.Module,
    parts: list[PairedAnswers],
    key: dict[str, Any],
    folder: str | Path | None,
    *,
    settings: Settings,
    resume: bool,
    say: Callable[[str], None],
) -> History:
    """Train the policy on the first part, stopped by the second where there is one."""
    temporary = TemporaryDirectory(prefix="pegbox-") if folder is None else nullcontext(str(folder))
    valid = parts[1] if len(parts) > 1 else None
    with temporary as place, claimed(Path(place), key, resume=resume):
        return train(policy, parts[0], settings=settings, folder=place, valid=valid, resume=resume, say=say)


def paired(
    prompt: GeneratePrompt, rows: Preferences, too_long: TooLong, say: Callable[[str], None]
) -> tuple[Answered, Answered]:
    """Chosen and rejected answers after their prompts, as the policy reads and writes them."""
    task: Any = Prefer(
        system=prompt.task.system, chat=prompt.task.chat, chat_template=prompt.task.chat_template
    )
    reader = PreferPrompt(task, prompt.tokenizer, "encoder", prompt.context, writer=prompt)
    pairs = reader.encode_pairs(rows, too_long=too_long)
    for note in pairs.notes():
        say(note)
    sides = []
    for place in (0, 1):
        whole = pairs.ids(place)
        answers = [rows.chosen, rows.rejected][place]
        chains = [(*rows.prompts[index], Message("assistant", answers[index])) for index in pairs.kept]
        sizes = prompt.answer_sizes(chains)
        starts = [len(ids) - size for ids, size in zip(whole, sizes, strict=True)]
        sides.append(
            Answered(
                tuple(ids[:at] for ids, at in zip(whole, starts, strict=True)),
                tuple(ids[at:] for ids, at in zip(whole, starts, strict=True)),
                (True,) * len(whole),
            )
        )
    return sides[0], sides[1]


def _favoured(
    module: nn.Module, parts: Sequence[PairedAnswers], say: Callable[[str], None], *, bf16: bool
) -> dict[str, Any]:
    """What the held-out pairs, where there are some, say of the policy; told and returned for its details."""
    if not parts:
        return {}
    share = parts[0].favoured(module, bf16=bf16)
    say(
        f"of {len(parts[0])} held-out pairs, by which training was stopped, the policy favours the chosen "
        f"answer more than the model before it did in a share of {share} (chance 0.5)"
    )
    return {"favoured": asdict(share)}


def _both(module: nn.Module, base: Base, sides: tuple[Answered, Answered], *, bf16: bool) -> Tensor:
    """Summed log-probabilities (pairs, 2) of chosen and rejected answers under a model."""
    return torch.stack([_said(module, base, side, bf16=bf16) for side in sides], dim=1)


@torch.no_grad()
def _said(module: nn.Module, base: Base, rows: Answered, *, bf16: bool = False) -> Tensor:
    """Summed log-probability (rows,) of each answer under a model, in the precision of training."""
    found = torch.zeros(len(rows))
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    for indices in track(batches(rows.lengths, size), "reading answers"):
        batch = Batch.of(rows.select(indices), base.pad, base.device)
        with torch.autocast(base.device.type, torch.bfloat16, enabled=bf16):
            found[indices] = logprobs(module, batch).sum(1).float().cpu()
    return found


def read_pairs(
    rows: Preferences | str | Path,
    dialogue: Dialogue,
    *,
    texts: Sequence[str] = (),
    on_bad: str = "error",
    say: Callable[[str], None] = hush,
) -> Preferences:
    """Preferences: rows as they are, or those of a file or hub id, told how they are read."""
    if isinstance(rows, Preferences):
        return rows
    found = Prefer.from_table(read(rows), texts=texts, dialogue=dialogue, on_bad=on_bad)
    told(found.notes, say)
    assert found.rows is not None
    return found.rows
