"""TRL's side of ppo.py, run by its own environment, and what both sides measure by."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import _common as common

# Adam's epsilon, and the share of its rate that the last step has, as Pegbox's.
EPSILON, LAST_RATE = 1e-5, 0.1


@dataclass(frozen=True)
class Order:
    """What to train, for both sides.

    Args:
        model: Folder of the base.
        start: Folder with ``sft`` and ``reward``, two adapters, and ``told.json``.
        policy: Where the trained policy goes.
        seed: Of adapters, answers and orders.
        steps: Batches of answers.
        batch: Answers of a batch.
        minibatch: Answers of an optimiser step.
        epochs: Passes over a batch.
        tokens: Most tokens of an answer.
        rate: Learning rate of policy and value model.
        beta: Weight of the divergence.
        options: What TRL's configuration gets besides.
        example: Whether TRL's models are as its example script has them.
        gpu: Whether the first GPU computes it, in bfloat16.
    """

    model: str
    start: str
    policy: str
    seed: int
    steps: int
    batch: int
    minibatch: int
    epochs: int
    tokens: int
    rate: float
    beta: float
    options: Mapping[str, Any] = field(default_factory=dict)
    example: bool = False
    gpu: bool = False

    def tiny(self) -> Order:
        """The same in one step of a few tokens, done first, so that late imports count for nothing."""
        return replace(self, steps=1, batch=4, minibatch=2, tokens=2, policy=f"{self.policy}-tiny")

    def told(self) -> dict[str, Any]:
        """Prompts, the reward's scale and some answers with their rewards."""
        found: dict[str, Any] = json.loads((Path(self.start) / "told.json").read_text("utf-8"))
        return found


class Course:
    """Time at the end of each step, and memory, beyond what is resident when it is made."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.before = common.settle(gpu)
        self.ends: list[tuple[float, float]] = []

    def step(self) -> None:
        common.finish(self.gpu)
        self.ends.append((time.perf_counter(), time.process_time()))

    def train(self, work: Callable[[], Any]) -> Any:
        """Do the work that calls `step`; memory is what is taken at most in it."""
        common.settle(self.gpu)
        began = time.process_time()
        found = work()
        self.whole = time.process_time() - began
        self.peak = common.peak(self.gpu)
        self.parameters = parameters()
        return found

    def cell(self, order: Order) -> common.Cell:
        """Answers per second over all steps but the first and the last, after which Pegbox looks at held-out
        prompts; and what the whole took beside steps of that speed."""
        first, last = self.ends[0], self.ends[-2]
        clock, processor = (last[which] - first[which] for which in (0, 1))
        answers = (len(self.ends) - 2) * order.batch
        return {
            "clock": answers / clock,
            "processor": answers / processor,
            "whole": self.whole,
            "beside": self.whole - len(self.ends) * processor / (len(self.ends) - 2),
            "grown": self.peak - self.before,
            "peak": self.peak,
            "parameters": self.parameters,
            "steps": len(self.ends),
        }


def parameters() -> int:
    """Bytes of all parameters in the process, those that share storage once."""
    import torch

    found = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in gc.get_objects()
        if isinstance(one, torch.nn.Parameter)
    }
    return sum(found.values())


# Models


def scored(order: Order, adapted: bool) -> Any:
    """The reward model as TRL reads one, in standard deviations of the reward on the reference's answers.

    Args:
        order: What to train.
        adapted: Keep its adapter apart and trainable, with the head, and not in the weights.
    """
    import torch
    from peft import LoraConfig, LoraModel
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    folder, scale = Path(order.start) / "reward", order.told()["scale"]
    dtype = number_format(order)
    model = AutoModelForSequenceClassification.from_pretrained(order.model, num_labels=1, dtype=dtype)
    config: Any = LoraConfig.from_pretrained(str(folder))
    config.target_modules = {name.replace("encoder.", "model.", 1) for name in config.target_modules}
    config.modules_to_save, config.inference_mode = None, False
    tuner = LoraModel(model, config, "default")
    numbers = dict(model.named_parameters())
    head = {}
    with torch.no_grad():
        for name, value in load_file(folder / "adapter_model.safetensors").items():
            place = name.removeprefix("base_model.model.")
            if place.startswith("score."):
                head[place.removeprefix("score.")] = value
                continue
            place = place.replace("encoder.", "model.", 1).replace(".weight", ".default.weight")
            numbers[place].copy_(value)
        model.score = torch.nn.Linear(model.config.hidden_size, 1, dtype=dtype)
        model.score.weight.copy_(head["weight"] / scale["deviation"])
        model.score.bias.copy_((head["bias"] - scale["mean"]) / scale["deviation"])
    return model if adapted else tuner.merge_and_unload().requires_grad_(False)


def number_format(order: Order) -> Any:
    import torch

    return torch.bfloat16 if order.gpu else torch.float32


def models(order: Order) -> dict[str, Any]:
    """Policy, reference, reward and value model, as the trainer is given them."""
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(order.model, dtype=number_format(order))
    sft = str(Path(order.start) / "sft")
    policy: Any = PeftModel.from_pretrained(base, sft, is_trainable=True)
    found: dict[str, Any] = {"ref_model": None, "reward_model": scored(order, adapted=False)}
    if order.example:
        kept = policy.peft_config["default"]
        lora = LoraConfig(
            r=kept.r,
            lora_alpha=kept.lora_alpha,
            target_modules=list(kept.target_modules),
            task_type="CAUSAL_LM",
        )
        value = scored(order, adapted=False).requires_grad_(True)
        return {**found, "model": policy.merge_and_unload(), "value_model": value, "peft_config": lora}
    policy.load_adapter(sft, "reference")
    return {**found, "model": policy, "value_model": scored(order, adapted=True)}


def configuration(order: Order, folder: str) -> Any:
    """TRL's settings.

    The batch is one of ``per_device_train_batch_size`` without accumulation, since with it the trainer steps
    once per ``gradient_accumulation_steps`` minibatches. It knows no gradient clipping; its value's clip is
    set out of reach; the value's weight does not matter to Adam.
    """
    from trl.experimental.ppo import PPOConfig

    given: dict[str, Any] = {
        "per_device_train_batch_size": order.batch,
        "gradient_accumulation_steps": 1,
        "num_mini_batches": order.batch // order.minibatch,
        "num_ppo_epochs": order.epochs,
        "total_episodes": order.batch * order.steps,
        "response_length": order.tokens,
        "stop_token": "eos",
        "missing_eos_penalty": 1.0,
        "temperature": 1.0,
        "kl_coef": order.beta,
        "kl_estimator": "k1",
        "cliprange": 0.2,
        "cliprange_value": 1e9,
        "vf_coef": 1.0,
        "gamma": 1.0,
        "lam": 0.95,
        "learning_rate": order.rate,
        "lr_scheduler_type": "polynomial",
        "lr_scheduler_kwargs": {"lr_end": LAST_RATE * order.rate, "power": 1.0},
        "adam_epsilon": EPSILON,
        "weight_decay": 0.0,
        "bf16": order.gpu,
        "use_cpu": not order.gpu,
        "seed": order.seed,
        "num_sample_generations": 0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    if not order.example:
        given |= {"model_adapter_name": "default", "ref_adapter_name": "reference"}
    return PPOConfig(output_dir=folder, **(given | dict(order.options)))


# One run


def distance(model: Any, told: Mapping[str, Any], pad: int) -> float:
    """How far the reward is from Pegbox's on some answers, read as the trainer reads them."""
    import torch
    from trl.experimental.utils import get_reward

    furthest = 0.0
    for prompt, answer, score in told["checked"]:
        # One pad at the end, as an answer that ended has it.
        row = torch.tensor([[*prompt, *answer, pad]], device=model.device)
        with torch.no_grad():
            found = get_reward(model, row, pad, len(prompt))[1]
        furthest = max(furthest, abs(float(found) - score))
    return furthest


def child(order: Order) -> common.Cell:
    """Train with TRL's PPOTrainer."""
    train(order.tiny(), Course(order.gpu))
    return train(order, Course(order.gpu))


def train(order: Order, course: Course) -> common.Cell:
    """One training; the cell is empty where it has too few steps for one."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOTrainer

    class Ends(TrainerCallback):
        def __init__(self) -> None:
            self.said: list[dict[str, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            course.step()

        def on_log(self, *_: Any, **told: Any) -> None:
            self.said.append(told["logs"])

    ends, told = Ends(), order.told()
    torch.manual_seed(order.seed)
    tokenizer = AutoTokenizer.from_pretrained(order.model, padding_side="left")
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=configuration(order, folder),
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"input_ids": told["prompts"]}),
            callbacks=[ends],
            **models(order),
        )
        apart = distance(trainer.reward_model, told, tokenizer.pad_token_id)
        trained = sum(one.numel() for one in trainer.model.parameters() if one.requires_grad)
        course.train(trainer.train)
    if order.steps == 1:
        return {}
    trainer.model.policy.save_pretrained(order.policy, selected_adapters=["default"])
    kept = {"objective/kl": "kl", "objective/scores": "reward", "val/ratio": "ratio"}
    lines = [line for line in ends.said if "objective/kl" in line]
    history = [{name: line[key] for key, name in kept.items()} for line in lines]
    return {**course.cell(order), "trained": trained, "apart": apart, "history": history}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with common.threads(1):
        print(json.dumps(child(Order(**json.loads(sys.argv[1])))))
