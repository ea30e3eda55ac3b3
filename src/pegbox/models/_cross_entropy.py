"""Cross-entropy over many outputs, for a few positions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# 64 MiB in float32, of which a few exist at a time; smaller chunks measured slower.
LOGITS_PER_CHUNK = 1 << 24


def chunked_cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    logits: Callable[[Tensor], Tensor],
    *,
    outputs: int,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Cross-entropy -log softmax(logits(h))[y] of each position, (positions,), at least in float32.

    Logits exist for one chunk of positions at a time, so that memory grows with positions times width, not
    with positions times outputs. Where nothing of the output layer is trained, a chunk's gradient, softmax
    less one-hot times the output matrix, is taken while its logits are there; else the backward pass computes
    them anew, since the parameters' gradient sums over positions that may weigh differently.

    Args:
        hidden: (positions, width) what enters the output layer.
        targets: (positions,) indices of outputs.
        logits: Maps (chunk, width) to (chunk, outputs), row by row.
        outputs: How many there are.
        parameters: What is trained of that map; its gradient is lost for others.
    """
    rows = max(1, LOGITS_PER_CHUNK // outputs)
    if isinstance(logits, nn.Linear) and _is_frozen(logits):
        return _Frozen.apply(hidden, targets, logits, rows)
    if len(hidden) <= rows:
        return functional.cross_entropy(_precise(logits(hidden)), targets, reduction="none")
    losses: Tensor = _Chunks.apply(hidden, targets, logits, rows, *parameters)
    return losses


class _Frozen(Function):
    """The losses of :func:`chunked_cross_entropy` for a plain linear layer of which nothing is trained.

    The softmax is taken in place, in one buffer that all chunks share, and multiplied with the weight at
    once: no graph, no second tensor of the logits' size, and under autocast one cast of the weight.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, hidden: Tensor, targets: Tensor, layer: nn.Linear, rows: int
    ) -> Tensor:
        """Losses (positions,), and their gradient by the hidden states."""
        cast = _autocast_dtype(hidden)
        weight = layer.weight.detach() if cast is None else layer.weight.detach().to(cast)
        states = hidden.detach() if cast is None else hidden.detach().to(cast)
        bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
        precise = torch.promote_types(weight.dtype, torch.float32)
        size = (min(rows, len(hidden)), len(weight))
        buffer = torch.empty(size, dtype=precise, device=hidden.device)
        raw = buffer if weight.dtype == precise else buffer.new_empty(size, dtype=weight.dtype)
        losses = torch.empty(len(hidden), dtype=precise, device=hidden.device)
        gradient = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _parts(len(hidden), rows):
                count = len(states[part])
                found, made = buffer[:count], raw[:count]
                if bias is None:
                    torch.mm(states[part], weight.T, out=made)
                else:
                    torch.addmm(bias, states[part], weight.T, out=made)
                if made is not found:
                    found.copy_(made)
                said = found.gather(-1, targets[part, None]).squeeze(-1)
                most = found.amax(-1, keepdim=True)
                found.sub_(most).exp_()
                total = found.sum(-1, keepdim=True)
                losses[part] = total.log().squeeze(-1) + most.squeeze(-1) - said
                if gradient is not None:
                    found.div_(total)
                    found[torch.arange(count, device=found.device), targets[part]] -= 1
                    if made is not found:
                        made.copy_(found)
                    gradient[part] = (made @ weight).to(gradient.dtype)
        if gradient is not None:
            context.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(context: Any, weights: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradient by the hidden states, for ``weights`` (positions,) of the losses."""
        (gradient,) = context.saved_tensors
        return (gradient * weights[:, None].to(gradient.dtype), None, None, None)


def _is_frozen(layer: nn.Linear) -> bool:
    """Whether a layer is a plain product that nothing trains and nobody watches."""
    watched = layer._forward_hooks or layer._forward_pre_hooks
    plain = type(layer) is nn.Linear and not watched
    return plain and not any(value.requires_grad for value in layer.parameters())


def _autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    """The type that autocast multiplies in here; ``None`` where it does not work."""
    kind = hidden.device.type
    on = torch.is_autocast_enabled(kind) and hidden.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if on else None


class _Chunks(Function):
    """The losses of :func:`chunked_cross_entropy` for more than one chunk.

    Results are written into tensors made before: pieces kept between the large temporary ones would keep the
    C library from using the space of one chunk for the next.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any,
        hidden: Tensor,
        targets: Tensor,
        logits: Callable[[Tensor], Tensor],
        rows: int,
        *parameters: Tensor,
    ) -> Tensor:
        """Losses (positions,), and where nothing else is trained the gradient by the hidden states."""
        at_once = context.needs_input_grad[0] and not parameters
        context.logits, context.rows, context.modes = logits, rows, _Modes.now(hidden.device)
        gradient = torch.empty_like(hidden) if at_once else None
        losses: Tensor | None = None
        for part in _parts(len(hidden), rows):
            with torch.set_grad_enabled(at_once):
                states = hidden[part].detach().requires_grad_(at_once)
                found = _precise(logits(states))
            # The first chunk tells the type.
            losses = found.new_empty(len(hidden)) if losses is None else losses
            log_sum = found.detach().logsumexp(-1)
            losses[part] = log_sum - found.detach().gather(-1, targets[part, None]).squeeze(-1)
            if gradient is not None:
                surplus = _surplus(found.detach(), log_sum, targets[part])
                gradient[part] = torch.autograd.grad(found, states, surplus)[0]
        context.save_for_backward(*([gradient] if at_once else [hidden, targets, *parameters]))
        assert losses is not None
        return losses

    @staticmethod
    @once_differentiable
    def backward(context: Any, weights: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients by hidden states and parameters, for ``weights`` (positions,) of the losses."""
        if len(context.saved_tensors) == 1:
            (gradient,) = context.saved_tensors
            return (gradient * weights[:, None].to(gradient.dtype), None, None, None)
        hidden, targets, *parameters = context.saved_tensors
        by_hidden = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        sums: list[Tensor | None] = [None] * len(parameters)
        with context.modes.again():
            for part in _parts(len(hidden), context.rows):
                states = hidden[part].detach().requires_grad_(by_hidden is not None)
                with torch.enable_grad():
                    found = _precise(context.logits(states))
                surplus = _surplus(found.detach(), found.detach().logsumexp(-1), targets[part])
                surplus *= weights[part, None]
                wanted = [*parameters, *([] if by_hidden is None else [states])]
                grads = torch.autograd.grad(found, wanted, surplus, allow_unused=True)
                if by_hidden is not None:
                    by_hidden[part] = grads[-1]
                for place, grad in enumerate(grads[: len(parameters)]):
                    sums[place] = _plus(sums[place], grad)
        return (by_hidden, None, None, None, *sums)


def _parts(positions: int, rows: int) -> Iterator[slice]:
    return (slice(at, at + rows) for at in range(0, positions, rows))


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _surplus(logits: Tensor, log_sum: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each position's loss by its logits: softmax less one-hot."""
    found = (logits - log_sum[:, None]).exp_()
    found[torch.arange(len(found), device=found.device), targets] -= 1
    return found


def _plus(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total.add_(more)


@dataclass(frozen=True)
class _Modes:
    """Autocast and random state of a forward pass, which a pass that is done again must have too."""

    device: torch.device
    dtype: torch.dtype
    autocast: bool
    random: Tensor
    own_random: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> _Modes:
        """Take down what holds now."""
        kind = device.type
        own = torch.cuda.get_rng_state(device) if kind == "cuda" else None
        autocast = torch.is_autocast_enabled(kind)
        return cls(device, torch.get_autocast_dtype(kind), autocast, torch.get_rng_state(), own)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Bring it back for a block."""
        places = [] if self.own_random is None else [self.device]
        with (
            torch.random.fork_rng(places),
            torch.autocast(self.device.type, self.dtype, enabled=self.autocast),
        ):
            torch.set_rng_state(self.random)
            if self.own_random is not None:
                torch.cuda.set_rng_state(self.own_random, self.device)
            yield
