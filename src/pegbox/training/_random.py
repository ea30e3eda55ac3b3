"""The state of the random generators as tensors, so that it is stored without pickles."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def capture() -> dict[str, Tensor]:
    """Return the states of Python's, NumPy's and PyTorch's (CPU, current CUDA device) global generators."""
    version, words, spare = random.getstate()
    # The global generator is what libraries that transformers calls draw from; hence the legacy functions.
    legacy: Any = np.random.get_state()  # noqa: NPY002
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_spare": torch.tensor([math.nan if spare is None else spare], dtype=torch.float64),
        "numpy": torch.tensor([*legacy[1].tolist(), legacy[2], legacy[3]], dtype=torch.int64),
        "numpy_spare": torch.tensor([legacy[4]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Tensor]) -> None:
    """Set the global generators to ``state``, as `capture` gave it."""
    version, *words = state["python"].tolist()
    spare = state["python_spare"].item()
    random.setstate((version, tuple(words), None if math.isnan(spare) else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(  # noqa: NPY002
        ("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, state["numpy_spare"].item())
    )
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
