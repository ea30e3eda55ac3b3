"""Learned embeddings for token ids above the vocabulary, at any position, as a kind of PEFT adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from pegbox.errors import InputError
from pegbox.methods._tuners._register import AdapterConfig, peft_type, register_adapter
from pegbox.methods._tuners._wrapping import WrappingTuner, refuse_merge

SAMPLE = 1000
LSTM_LAYERS = 2
UNMERGEABLE = "soft tokens cannot be merged: they stand in the prompt and change no weight of the model"


@dataclass
class SoftTokensConfig(AdapterConfig):
    """Configuration of soft tokens.

    Args:
        tokens: How many there are.
        hidden: Width of the encoder that makes their embeddings, in each direction; none when they are plain.
    """

    tokens: int = 20
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("PEGBOX_SOFT_TOKENS")


class PromptEncoder(nn.Module):
    """MLP(LSTM(table)): a bidirectional LSTM of two layers, then linear, ReLU, linear (Liu et al. 2021).

    Args:
        width: Width d of the embeddings.
        hidden: Width of the LSTM in each direction.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, num_layers=LSTM_LAYERS, bidirectional=True)
        self.inner = nn.Linear(2 * hidden, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, width)

    def forward(self, table: Tensor) -> Tensor:
        """Embeddings (tokens, d) from the table (tokens, d)."""
        return self.outer(functional.relu(self.inner(self.lstm(table)[0])))

    @torch.no_grad()
    def rescale(self, table: Tensor, deviation: float) -> None:
        """Scale the last layer so that the embeddings begin with this standard deviation."""
        factor = deviation / self(table).std()
        self.outer.weight.mul_(factor)
        self.outer.bias.mul_(factor)


class SoftTable(nn.Module):
    """The embeddings of one adapter's soft tokens, plain or made by an encoder.

    Args:
        table: Initial numbers, (tokens, d) float32.
        encoder: What makes the embeddings of these numbers; ``None`` when they are the embeddings.
    """

    def __init__(self, table: Tensor, encoder: PromptEncoder | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(table)
        self.encoder = encoder

    def __len__(self) -> int:
        return len(self.weight)

    def forward(self) -> Tensor:
        """Embeddings (tokens, d), in float32 under autocast too."""
        if self.encoder is None:
            return self.weight
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.encoder(self.weight)

    @torch.no_grad()
    def fold(self) -> None:
        """Keep the embeddings that the encoder makes instead of it."""
        self.weight.data = self().detach()
        self.encoder = None


class SoftTokensLayer(nn.Module, BaseTunerLayer):
    """An embedding in which each id from its number of rows upwards has a learned vector.

    The vectors are what the embedding would return, after any scale of its own. Those of several active
    adapters follow one another. While adapters are disabled, these ids have the zero vector.

    Args:
        base_layer: The input embedding.
        adapter_name: Name of the first adapter.
        config: Its configuration.
    """

    adapter_layer_names = ("soft_tokens_tables",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: SoftTokensConfig) -> None:
        super().__init__()
        self.base_layer: nn.Module = base_layer
        self.soft_tokens_tables = nn.ModuleDict()
        self._configs: dict[str, SoftTokensConfig] = {}
        self._disable_adapters = False
        self.merged_adapters = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: SoftTokensConfig) -> None:
        """Add an adapter: normal numbers with the standard deviation of the embedding's own vectors."""
        rows, width = self.weight.shape
        encoder = PromptEncoder(width, config.hidden) if config.hidden else None
        table = torch.randn(config.tokens, width)  # on the CPU, so that a seed means the same on every device
        if not self.weight.is_meta:
            deviation = self._deviation(rows)
            table = table * deviation
            if encoder is not None:
                encoder.rescale(table, deviation)
        self.soft_tokens_tables[adapter_name] = SoftTable(table, encoder).float().to(self.weight.device)
        self._configs[adapter_name] = config
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Vectors (batch, tokens, d) of ids (batch, tokens).

        Raises:
            InputError: For an id above those of the active adapters.
        """
        rows = len(self.weight)
        top = int(ids.max()) if ids.numel() else 0
        if top < rows:
            return self.base_layer(ids, *args, **kwargs)
        soft = ids >= rows
        plain = self.base_layer(ids.masked_fill(soft, 0), *args, **kwargs)
        if self.disable_adapters:
            return plain.masked_fill(soft.unsqueeze(-1), 0)
        active = [name for name in self.active_adapters if name in self.soft_tokens_tables]
        tables = [self._table(name)() for name in active]
        count = sum(map(len, tables))
        if top >= rows + count:
            raise InputError(
                f"the prompt holds soft token {top - rows + 1}, and the active adapter has {count}",
                where=f"adapter {', '.join(self.active_adapters)}",
                expected="the prompt that the adapter was made for",
                fix="switch the prompt together with the adapter",
            )
        found = functional.embedding(ids[soft] - rows, torch.cat(tables))
        return plain.index_put((soft,), found.to(plain.dtype))

    def fold(self) -> None:
        """Replace each encoder by the embeddings that it makes; the layer's results stay the same."""
        for name in self.soft_tokens_tables:
            self._table(name).fold()
            self._configs[name].hidden = None

    @torch.no_grad()
    def start(self, adapter_name: str, vectors: Tensor) -> None:
        """Let an adapter's plain embeddings begin with ``vectors`` (tokens, d)."""
        self._table(adapter_name).weight.copy_(vectors)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Refuse: the prompt holds tokens that the vocabulary has not."""
        refuse_merge(UNMERGEABLE)

    def unmerge(self) -> None:
        """Refuse, since nothing was merged."""
        refuse_merge(UNMERGEABLE)

    def _table(self, adapter_name: str) -> SoftTable:
        table = self.soft_tokens_tables[adapter_name]
        assert isinstance(table, SoftTable)
        return table

    @torch.no_grad()
    def _deviation(self, rows: int) -> float:
        """Standard deviation of the numbers in some of the embedding's vectors."""
        ids = torch.linspace(0, rows - 1, min(rows, SAMPLE), device=self.weight.device).long()
        return float(self.base_layer(ids).float().std())


class SoftTokensModel(WrappingTuner):
    """Gives a model's input embedding soft tokens."""

    prefix = "soft_tokens_"
    tuner_layer_cls = SoftTokensLayer
    needs = "soft tokens need target_modules, the name of the input embedding"

    def _check_merge_allowed(self) -> None:
        refuse_merge(UNMERGEABLE)

    def _check_tied_modules(self, model: nn.Module, peft_config: PeftConfig) -> None:
        """Nothing to warn of: the embedding's own weight stays as it is, whatever else it is tied to."""


def encoder_parameters(width: int, hidden: int) -> int:
    """Numbers in a :class:`PromptEncoder` of width d and hidden width h.

    The gates have 8 h (d + 4 h + 4): each direction of an LSTM layer with n inputs has 4 h (n + h + 2), and n
    is d, then 2 h. The MLP has 2 h (2 h + 1) + d (2 h + 1).
    """
    gates = 2 * 4 * hidden * ((width + hidden + 2) + (2 * hidden + hidden + 2))
    return gates + 2 * hidden * (2 * hidden + 1) + width * (2 * hidden + 1)


register_adapter("pegbox_soft_tokens", SoftTokensConfig, SoftTokensModel)
