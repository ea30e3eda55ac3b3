"""Zero-init attention (Zhang et al. 2023, LLaMA-Adapter) as a kind of PEFT adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from pegbox.methods._tuners._attention import Attend, AttentionAdapter
from pegbox.methods._tuners._probe import Geometry, project
from pegbox.methods._tuners._register import peft_type, register_adapter
from pegbox.methods._tuners._tuner import AttentionConfig, AttentionTuner


@dataclass
class ZeroInitConfig(AttentionConfig):
    """Configuration of zero-init attention.

    Args:
        length: Prompt vectors P of each attention module.
    """

    length: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("PEGBOX_ZERO_INIT")


class ZeroInitLayer(AttentionAdapter):
    """out + tanh(gate) attention(query, K, V), one gate for each query head, all starting at zero.

    K and V are what the module's own frozen projections make of the learned prompt, without rotary positions
    (equations 4 to 8 of the paper). The prompt has a softmax of its own. Several live adapters add up.
    """

    adapter_layer_names = ("zero_init_prompt", "zero_init_gate")

    def __init__(self, owner: nn.Module) -> None:
        super().__init__(owner)
        self.zero_init_prompt = nn.ParameterDict()
        self.zero_init_gate = nn.ParameterDict()
        self.rotary: dict[str, int] = {}
        self.projected: dict[str, tuple[Any, tuple[Tensor, Tensor]]] = {}

    def add(self, name: str, shape: list[int], config: ZeroInitConfig) -> None:
        """Add an adapter with a random prompt and gates of zero.

        Args:
            name: Its name.
            shape: Query heads, width of the module's input, width of its rotary factors.
            config: Its configuration.
        """
        heads, width, self.rotary[name] = shape
        self.zero_init_prompt[name] = nn.Parameter(torch.randn(config.length, width))
        self.zero_init_gate[name] = nn.Parameter(torch.zeros(heads))

    def attend(
        self,
        attend: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the text, and add what each prompt says."""
        answer, weights = attend(module, query, key, value, mask, **options)
        # Every token sees the whole prompt, which has no positions.
        options = {k: v for k, v in options.items() if k != "position_bias"} | {"is_causal": False}
        for name in self.live:
            keys, values = (part.expand(len(query), -1, -1, -1) for part in self._keys(module, name, query))
            said, _ = attend(module, query, keys, values, None, **options)
            # (heads) -> (1, 1, heads, 1) against (batch, tokens, heads, value width)
            gate = torch.tanh(self.zero_init_gate[name]).to(said.dtype)[:, None]
            answer = answer + gate * said
        return answer, weights

    def _keys(self, module: nn.Module, name: str, query: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a prompt; without gradients they are kept until a parameter changes."""
        parameters = list(module.parameters())
        if torch.is_grad_enabled() or any(parameter.is_inference() for parameter in parameters):
            self.projected.clear()  # a step may follow, and fused optimisers leave no trace on the version
            return self._made(module, name, query)
        # Both change with the numbers of a parameter: the place when they are replaced, the version in place.
        state = (query.dtype, query.device, [(p.data_ptr(), p._version) for p in parameters])
        held = self.projected.get(name)
        if held is None or held[0] != state:
            self.projected[name] = held = (state, self._made(module, name, query))
        return held[1]

    def _made(self, module: nn.Module, name: str, query: Tensor) -> tuple[Tensor, Tensor]:
        prompt = self.zero_init_prompt[name].to(query.dtype)
        keys, values = project(module, prompt, self.rotary[name])
        return keys.to(query.dtype), values.to(query.dtype)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, and forget what was kept."""
        self.projected.clear()
        return super().train(mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter."""
        self.rotary.pop(adapter_name, None)
        self.projected.pop(adapter_name, None)
        super().delete_adapter(adapter_name)


class ZeroInitModel(AttentionTuner):
    """Puts gated prompts on self-attention modules."""

    prefix = "zero_init_"
    child = "gated_prompt"
    tuner_layer_cls = ZeroInitLayer

    @staticmethod
    def shape(geometry: Geometry) -> list[int] | None:
        """Query heads, input width and rotary width; nothing across from an encoder."""
        return None if geometry.cross else [geometry.heads, geometry.width, geometry.rotary]


register_adapter("pegbox_zero_init", ZeroInitConfig, ZeroInitModel)
