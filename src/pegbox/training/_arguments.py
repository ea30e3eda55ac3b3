"""Our settings as transformers' arguments."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import TrainingArguments

from pegbox.training._settings import Settings
from pegbox.training._trackers import trackers

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def arguments(settings: Settings, folder: Path, *, use_cpu: bool) -> TrainingArguments:
    """Return Trainer's arguments with everything switched off that the engine does itself."""
    made = TrainingArguments(
        output_dir=str(folder),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.gradient_clip or math.inf,
        seed=settings.seed,
        use_cpu=use_cpu,
        report_to=trackers(settings.report_to),
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,  # or DistributedDataParallel walks the whole graph at every step
    )
    made._n_gpu = min(made.n_gpu, 1)  # several GPUs in one process would mean nn.DataParallel
    return made
