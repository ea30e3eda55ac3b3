"""Soft tokens at the front as an adapter that plain PEFT knows, without Pegbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._atomic import folder as atomic_folder
from pegbox.data import Examples
from pegbox.errors import CapabilityError
from pegbox.methods._peft import WEIGHTS
from pegbox.models import Base
from pegbox.tasks import Prompt


@torch.no_grad()
def export_prompt_tuning(
    module: nn.Module, base: Base, prompt: Prompt, folder: Path, *, overwrite: bool = False
) -> Path:
    """Write a soft prompt as PEFT's PROMPT_TUNING, for causal models.

    PEFT puts its virtual tokens before everything, a leading special token included, while the soft tokens
    stand after it. So the leading special tokens become virtual tokens too, with their own embeddings, and
    whoever uses the export must give the text without them (``add_special_tokens=False``). One row at a time,
    or rows padded on the right, then have the same answers; PEFT puts padding on the left between the virtual
    tokens and the text.

    Args:
        module: What :meth:`pegbox.methods.SoftPrompt.attach` made, perhaps trained.
        base: Its base.
        prompt: The prompt with the soft tokens.
        folder: Where; its parents are made.
        overwrite: Whether an existing folder may be replaced, where it holds an adapter.

    Raises:
        CapabilityError: For models that are not causal, and for soft tokens elsewhere than at the front.
    """
    from peft import PromptTuningConfig
    from safetensors.torch import save_file

    soft = prompt.soft
    if base.kind != "causal" or soft is None or soft.count != soft.front:
        raise CapabilityError(
            "PEFT's prompt tuning holds soft tokens before the text of a causal model, and nothing else",
            where=base.name,
            expected="a causal model with soft-prompt",
            fix="load the adapter itself with peft.PeftModel.from_pretrained after import pegbox",
        )
    vectors = _leading(module, base, prompt)
    settings: Any = base.model.config
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        num_virtual_tokens=len(vectors),
        token_dim=vectors.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=settings.num_attention_heads,
        num_layers=settings.num_hidden_layers,
        base_model_name_or_path=base.name,
        revision=base.revision,
    )
    with atomic_folder(folder, overwrite=overwrite, own=("adapter_config.json",)) as target:
        save_file({"prompt_embeddings": vectors}, target / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(target))
    return folder


def _leading(module: nn.Module, base: Base, prompt: Prompt) -> Tensor:
    """Vectors of the leading special tokens and the soft tokens, (tokens, d) float32."""
    from pegbox.methods._tuners.soft_tokens import SoftTokensLayer

    layer = next((part for part in module.modules() if isinstance(part, SoftTokensLayer)), None)
    if layer is None:
        raise CapabilityError(
            "this module has no soft tokens", where=base.name, expected="what SoftPrompt.attach made"
        )
    encoded = prompt.encode(Examples("", dict.fromkeys(prompt.task.fields, ("x",)), None, (1,)))
    row = [*encoded.prefix, *encoded.ids[0]]
    ids = row[: row.index(max(row)) + 1]  # the last soft token has the highest id of all
    return layer(torch.tensor([ids], device=base.device))[0].float().cpu().contiguous()
