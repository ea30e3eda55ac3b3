from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pegbox.data import Examples
from pegbox.errors import UsageError
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options
from pegbox.models import Base
from pegbox.tasks import Prompt, Soft

if TYPE_CHECKING:
    from pegbox.methods._tuners.soft_tokens import SoftTokensLayer


def embedding_shape(base: Base) -> tuple[int, int]:
    """Rows and width of the input embedding; soft tokens have the ids from the number of rows upwards."""
    weight: Tensor = input_embedding(base.model)[1].weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1]


def input_embedding(module: Any) -> tuple[str, nn.Module]:
    """Name and module of the embedding that reads the prompt: of an encoder-decoder, the encoder's own.

    Args:
        module: A model, or what :meth:`pegbox.Base.module` made.
    """
    inner: Any = module.encoder if not hasattr(module, "get_input_embeddings") else module
    if getattr(inner.config, "is_encoder_decoder", False):
        inner = inner.get_encoder()
    layer: nn.Module = inner.get_input_embeddings()
    path = next(name for name, part in module.named_modules() if part is inner)
    name = next(name for name, part in inner.named_modules() if part is layer)
    return ".".join(filter(None, (path, name))), layer


def with_soft(method: str, base: Base, prompt: Prompt, soft: Soft) -> Prompt:
    """The prompt with soft tokens.

    Raises:
        UsageError: When they leave no room for a text.
    """
    found = replace(prompt, soft=soft)
    shortest = Examples("", dict.fromkeys(prompt.task.fields, ("x",)), None, (1,))
    encoded = found.without_soft().encode(shortest)
    rest = max(map(len, prompt.answers), default=1) - 1 if prompt.kind == "causal" else 0
    room = prompt.context - len(encoded.prefix) - encoded.lengths[0] - rest
    if soft.count > room:
        raise UsageError(
            f"{method}: {soft.count} soft tokens leave no room for a text",
            where=f"{base.name}, context {prompt.context} tokens",
            expected=f"at most {max(0, room)}, beside the template and the answer",
            fix="take fewer, or raise --max-length",
        )
    return found


def attach_soft(
    base: Base, prompt: Prompt, *, tokens: int, hidden: int | None, seed: int
) -> tuple[nn.Module, SoftTokensLayer]:
    """The base with learned soft tokens, and the layer that holds them; an encoder also trains its score.

    Args:
        base: The base.
        prompt: The task.
        tokens: How many soft tokens.
        hidden: Width of the encoder that makes them; none for plain embeddings.
        seed: Seed of the initial values.
    """
    from pegbox.methods._tuners.soft_tokens import SoftTokensConfig, SoftTokensLayer

    module = base.module(len(prompt.task.labels))
    name = input_embedding(module)[0]
    config = SoftTokensConfig(tokens=tokens, hidden=hidden, target_modules=[name], **common_options(base))
    peft = with_adapter(base, module, config, seed=seed)
    layer = next(part for part in peft.modules() if isinstance(part, SoftTokensLayer))
    return peft, layer
