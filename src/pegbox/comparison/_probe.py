"""What one pass of a module multiplies and keeps, and how that grows with rows and tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pegbox.models import Trunk

# Backward passes of flash attention take five products of the size of its two forward ones.
_FLASH_BACKWARD = 2.5


@dataclass(frozen=True)
class Law:
    """A quantity of one pass as a polynomial in the rows B and tokens T of its batch.

    Products of linear layers grow with B T, those of attention with B T^2, and what is done once per batch
    with neither B nor its product with T: (1, T, T^2, B, B T, B T^2).

    Args:
        coefficients: One for each of the six terms.
    """

    coefficients: tuple[float, ...]

    def __call__(self, rows: float, tokens: float) -> float:
        """The quantity for a batch of so many rows of so many tokens."""
        return float(sum(c * term for c, term in zip(self.coefficients, _terms(rows, tokens), strict=True)))

    @classmethod
    def through(cls, points: Sequence[tuple[int, int, float]]) -> Law:
        """The polynomial through (rows, tokens, quantity) at two numbers of rows and three of tokens."""
        system = torch.tensor([_terms(rows, tokens) for rows, tokens, _ in points], dtype=torch.float64)
        values = torch.tensor([value for *_, value in points], dtype=torch.float64)
        found = torch.linalg.lstsq(system, values[:, None], driver="gelsd").solution[:, 0]
        return cls(tuple(found.tolist()))


@dataclass
class Seen:
    """What one pass did.

    Args:
        forward: Floating point operations of matrix products and attention, a multiplication and an addition
            each counted as one.
        backward: The same of the gradients that the pass asks for.
        kept: Bytes that the forward pass keeps for the backward pass, beside parameters and inputs.
        calls: Torch functions that the forward pass calls.
    """

    forward: float = 0.0
    backward: float = 0.0
    kept: float = 0.0
    calls: int = 0
    _held: list[Tensor] = field(default_factory=list, repr=False)
    _gradients: list[tuple[Any, float]] = field(default_factory=list, repr=False)

    def close(self, output: object) -> None:
        """Count the gradients of all products that the output depends on, and let go of the pass."""
        reached = _nodes(output)
        self.backward = sum(size for node, size in self._gradients if node in reached)
        self._gradients.clear()
        self._held.clear()


def watch(module: nn.Module, run: Callable[[], object], known: Sequence[Tensor] = ()) -> Seen:
    """Run a forward pass with gradients and tell what it and its backward pass, which is not run, take.

    Which gradients a product needs is read off its operands, as autograd does: none below the lowest trained
    parameter, none for frozen weights.

    Args:
        module: The module, with ``requires_grad`` as in training.
        run: Calls it.
        known: Inputs of the pass, which count as kept by someone else.
    """
    seen = Seen()
    owned = [*module.parameters(), *module.buffers(), *known]
    places = {tensor.untyped_storage().data_ptr() for tensor in owned}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in places:
            places.add(storage.data_ptr())
            seen.kept += storage.nbytes()
            seen._held.append(tensor)  # or its place may be given to another
        return tensor

    products = _Products(seen)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with products, _opaque(module, products):
            output = run()
        seen.close(output)
    return seen


def watch_trunk(trunk: Trunk, run: Callable[[], object]) -> Seen:
    """Run the frozen trunk alone and tell what it takes."""
    seen = Seen()
    products = _Products(seen)
    with torch.no_grad(), products, _opaque(trunk.model, products):
        trunk.capture(run)
    return seen


class _Products(TorchFunctionMode):
    """Counts the products of all torch functions that are called while it is active."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen
        self.inside = 0  # opaque layers, which are counted as a whole

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and count it where it is a product."""
        named = kwargs or {}
        result = func(*args, **named)
        self.seen.calls += 1
        count = _COUNTS.get(getattr(func, "__name__", ""))
        if count is not None and not self.inside:
            operands = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
            dropout = named.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            count(self.seen, result, operands, dropout if count is _attention else args[0])
        return result

    def add(self, result: Tensor, size: float, *operands: Tensor) -> None:
        """Count a product by its size, once forward and once for each operand that needs a gradient."""
        _add(self.seen, result, size, *operands)


def _add(seen: Seen, result: Tensor, size: float, *operands: Tensor) -> None:
    seen.forward += size
    if result.grad_fn is not None:
        wanted = sum(operand.requires_grad for operand in operands)
        seen._gradients.append((result.grad_fn, size * wanted))


def _product(seen: Seen, result: Tensor, operands: list[Tensor], _: Any) -> None:
    left, right = operands[:2]  # a linear layer's bias is the third
    _add(seen, result, 2.0 * result.numel() * left.shape[-1], left, right)


def _added(seen: Seen, result: Tensor, operands: list[Tensor], _: Any) -> None:
    _product(seen, result, operands[1:], _)


def _turned(seen: Seen, result: Tensor, operands: list[Tensor], _: Any) -> None:
    _product(seen, result, operands[::-1], _)


def _einsum(seen: Seen, result: Tensor, operands: list[Tensor], equation: Any) -> None:
    inputs, _, output = equation.replace(" ", "").partition("->")
    sizes = {
        letter: size
        for letters, operand in zip(inputs.split(","), operands, strict=True)
        for letter, size in zip(reversed(letters.split("...")[-1]), reversed(operand.shape), strict=False)
    }
    summed = math.prod(size for letter, size in sizes.items() if letter not in output)
    _add(seen, result, 2.0 * result.numel() * summed, *operands)


def _attention(seen: Seen, result: Tensor, operands: list[Tensor], dropout: float) -> None:
    query, key, value = operands[:3]
    # (batch, heads, tokens, width): scores of all pairs of tokens, then their sum over the values.
    pairs = 2.0 * query.shape[:-1].numel() * key.shape[-2]
    scores, sums = pairs * query.shape[-1], pairs * value.shape[-1]
    seen.forward += scores + sums
    if result.grad_fn is None:
        return
    backward = (scores + sums) * _FLASH_BACKWARD
    if dropout > 0 and query.device.type == "cpu":
        # A processor builds the matrix of scores then, as two products like any others.
        upper = query.requires_grad or key.requires_grad
        backward = scores * (query.requires_grad + key.requires_grad)
        backward += sums * (upper + value.requires_grad)
    seen._gradients.append((result.grad_fn, backward))


_COUNTS: dict[str, Callable[[Seen, Tensor, list[Tensor], Any], None]] = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm", "bmm"), _product),
    "__rmatmul__": _turned,
    **dict.fromkeys(("addmm", "baddbmm"), _added),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
}


@contextmanager
def _opaque(module: nn.Module, products: _Products) -> Iterator[None]:
    """Count 4-bit and recurrent layers as a whole, since their products are no torch functions."""

    def enter(*_: Any) -> None:
        products.inside += 1

    def leave(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        products.inside -= 1
        size = 2.0 * inputs[0].shape[:-1].numel() * _weights(layer)
        result = output if isinstance(output, Tensor) else output[0]
        products.add(result, size, inputs[0], next(value for value in layer.parameters() if value.dim() > 1))

    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, nn.RNNBase) or _packed(layer) is not None:
                stack.callback(layer.register_forward_pre_hook(enter).remove)
                stack.callback(layer.register_forward_hook(leave).remove)
        yield


def _weights(layer: nn.Module) -> float:
    """Numbers in a layer's matrices."""
    state = _packed(layer)
    if state is not None:
        return math.prod(state.shape)
    return sum(value.numel() for value in layer.parameters() if value.dim() > 1)


def _packed(layer: nn.Module) -> Any:
    """What tells the shape of a layer's own 4-bit weights; adapters around it show them as theirs."""
    return getattr(layer._parameters.get("weight"), "quant_state", None)


def _nodes(output: object) -> set[Any]:
    """All nodes of the graph that an output's gradient runs through."""
    parts = output if isinstance(output, tuple) else (output,)
    left = [part.grad_fn for part in parts if isinstance(part, Tensor) and part.grad_fn is not None]
    found: set[Any] = set(left)
    while left:
        further = {node for node, _ in left.pop().next_functions if node is not None} - found
        found |= further
        left += further
    return found


def _terms(rows: float, tokens: float) -> list[float]:
    return [1.0, tokens, tokens**2, rows, rows * tokens, rows * tokens**2]
