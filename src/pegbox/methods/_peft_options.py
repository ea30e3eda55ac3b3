from __future__ import annotations

from typing import Any

from pegbox.models import Base
from pegbox.tasks import Prompt

TASK_TYPES: dict[str, str] = {"causal": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}


def common_options(base: Base) -> dict[str, Any]:
    """What every PEFT configuration on a base says: its task type, and that an encoder trains its score."""
    return {
        "modules_to_save": ["score"] if base.kind == "encoder" else None,
        "task_type": TASK_TYPES.get(base.kind),
    }


def head_parameters(base: Base, prompt: Prompt) -> int:
    """Numbers in the score layer that is trained beside an adapter: K (d + 1) on an encoder, else none."""
    settings: Any = base.model.config
    return len(prompt.task.labels) * (settings.hidden_size + 1) if base.kind == "encoder" else 0
