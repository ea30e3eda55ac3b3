"""The frozen trunk below what is trained: where it ends, and how to run without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from pegbox.models._top_block import at_answers


class Trunk:
    """The lowest blocks of a model, none of which is trained.

    Args:
        blocks: Those blocks, in the order of the forward pass; at least one.
        model: The whole model.
    """

    def __init__(self, blocks: Sequence[nn.Module], model: nn.Module) -> None:
        self.blocks, self.model = tuple(blocks), model
        self._bare = True  # whether a block returns its hidden states bare, or first of several

    def capture(self, run: Callable[[], object]) -> Tensor:
        """Run the model up to the end of the trunk and return its hidden states (batch, tokens, width).

        Where gradients are on, the states carry them: nothing that is trained comes before the trunk's end if
        they do not require any.

        Args:
            run: Calls the model; it is left as soon as the trunk ends.

        Raises:
            LookupError: When the trunk never ran.
        """

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            self._bare = isinstance(output, Tensor)
            raise _Reached(output if self._bare else output[0])

        last = self.blocks[-1].register_forward_hook(stop)
        try:
            run()
        except _Reached as reached:
            return reached.hidden
        finally:
            last.remove()
        raise LookupError("the trunk did not run")

    @property
    def top(self) -> nn.Module | None:
        """The topmost block of the model, unless it belongs to the trunk."""
        last = blocks_of(self.model)[-1]
        return None if last is self.blocks[-1] else last

    @contextmanager
    def replay(self, hidden: Tensor, answers: Tensor | None = None) -> Iterator[None]:
        """While the context lasts, the trunk costs nothing and ends in ``hidden`` (batch, tokens, width).

        Args:
            hidden: As :meth:`capture` returned it.
            answers: Positions (batch,) at which alone the topmost block is to work, see :func:`at_answers`.
        """
        top = self.top if answers is not None else None
        own = [block.__dict__.get("forward") for block in self.blocks]
        for block in self.blocks:
            last = block is self.blocks[-1]
            # As an attribute of the instance it stands before the method of the class.
            block.__dict__["forward"] = _passing(hidden if last else None, bare=self._bare)
        try:
            with at_answers(top, answers) if top is not None and answers is not None else nullcontext():
                yield
        finally:
            for block, forward in zip(self.blocks, own, strict=True):
                del block.__dict__["forward"]
                if forward is not None:
                    block.__dict__["forward"] = forward

    def dropout(self) -> float:
        """The largest dropout probability at work below the end of the trunk in training; 0 for none.

        The embeddings count too, since their result is what the trunk keeps. An encoder below a head alone
        stays in eval mode while the head is trained, and drops nothing.
        """
        own = {id(block) for block in self.blocks}
        upper = [block for block in blocks_of(self.model) if id(block) not in own]
        above = {id(part) for block in upper for part in block.modules()}
        training = self.model.training
        self.model.train()
        rates = [_dropout(part) for part in self.model.modules() if part.training and id(part) not in above]
        self.model.train(training)
        return max(rates, default=0.0)


class _Reached(Exception):
    # No error: it leaves the forward pass early.
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


def _passing(hidden: Tensor | None, *, bare: bool) -> Callable[..., Any]:
    """A block's forward that returns ``hidden``, or else its input."""

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        answer = hidden_states if hidden is None else hidden
        return answer if bare else (answer,)

    return forward


def blocks_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """The repeated blocks of a model with one stack of them, lowest first; empty for other models.

    Of an encoder and a decoder neither counts, whichever is larger: the decoder's blocks look at the
    encoder's end, and the blocks of T5 hand on more than hidden states.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return ()
    stacks = [
        tuple(module)
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(part) for part in module}) == 1
    ]
    if not stacks:
        return ()
    sizes = [sum(value.numel() for part in stack for value in part.parameters()) for stack in stacks]
    largest = max(sizes)
    if sum(size > largest / 2 for size in sizes) > 1:
        return ()
    return stacks[sizes.index(largest)]


def frozen_trunk(model: nn.Module) -> Trunk | None:
    """The blocks below the lowest that holds a trained parameter, or ``None`` where there are none.

    What is trained outside the blocks may still come before them: :meth:`Trunk.capture` finds out.
    """
    blocks: Sequence[nn.Module] = blocks_of(model)
    trained = [any(value.requires_grad for value in block.parameters()) for block in blocks]
    count = trained.index(True) if True in trained else len(blocks)
    return Trunk(blocks[:count], model) if count else None


def _dropout(module: nn.Module) -> float:
    return max((getattr(module, name) for name in _rates(module)), default=0.0)


def without_dropout(module: nn.Module) -> None:
    """Set all rates of dropout in a module to 0."""
    for part in module.modules():
        for name in _rates(part):
            setattr(part, name, 0.0)


def _rates(module: nn.Module) -> list[str]:
    """Names of a module's own rates of dropout, that of families that call the function among them."""
    if isinstance(module, nn.Dropout):
        return ["p"]
    return [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]
