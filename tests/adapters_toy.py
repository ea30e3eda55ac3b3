"""What the tests of the attached methods share: bases of eight families, their logits, filled adapters."""

import copy
import subprocess
import sys
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import T5Config, T5ForConditionalGeneration

import pegbox
from pegbox.methods import Attached, save_adapter
from pegbox.models import Base
from pegbox.tasks import Prompt
from tuning_toy import base_of, task_of

FAMILIES = [
    ("llama", "causal"),
    ("qwen3", "causal"),
    ("gemma3_text", "causal"),
    ("mistral", "causal"),
    ("gpt2", "causal"),
    ("bert", "masked"),
    ("roberta", "masked"),
    ("bert", "encoder"),
    ("t5", "encoder-decoder"),
]
IDS = torch.tensor([[5, 77, 12, 301, 9, 44], [8, 20, 33, 41, 6, 7]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@cache
def family(architecture: str, kind: str) -> Base:
    """A tiny base; that of T5 is made here, with random norms and without a tokenizer."""
    if kind != "encoder-decoder":
        return base_of(architecture, kind)
    config = T5Config(
        vocab_size=512,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(config)
        for tensor in model.parameters():
            nn.init.normal_(tensor, 1.0 if tensor.dim() == 1 else 0.0, 0.3 if tensor.dim() == 1 else 0.15)
    model.eval().requires_grad_(False)
    return Base("t5", "encoder-decoder", model, None, "made here", 128)  # type: ignore[arg-type]


@cache
def prompt() -> Prompt:
    """A prompt of two labels; adapters look at nothing else of it."""
    return base_of("llama").prepare(task_of())


def attach(method: Attached, base: Base, seed: int = 0) -> Any:
    return method.attach(base, prompt(), seed=seed).eval()


def forward(module: Any) -> Tensor:
    """All logits of two rows, the second one padded on the right."""
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    if getattr(module.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = IDS.flip(1)
    output = module(**inputs)
    return output if isinstance(output, Tensor) else output.logits


@torch.no_grad()
def logits(module: Any) -> Tensor:
    return forward(module)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}


def count(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in trained(module).values())


@torch.no_grad()
def fill(module: nn.Module, seed: int = 1) -> None:
    """Move all trained numbers, so that what they do shows."""
    dice = torch.Generator().manual_seed(seed)
    for tensor in trained(module).values():
        tensor += 0.3 * torch.randn(tensor.shape, generator=dice).to(tensor)


def own_copy(base: Base) -> Base:
    """The base with weights of its own, for tests that merge into them."""
    return Base(base.name, base.kind, copy.deepcopy(base.model), base.tokenizer, "a copy", base.context, None)


def reloaded(module: nn.Module, base: Base, folder: Path) -> Any:
    """Save and load through plain PEFT, on the same base."""
    from peft import PeftModel

    save_adapter(module, folder)
    return PeftModel.from_pretrained(base.module(2), folder).eval()


def in_a_fresh_process(model: Path, adapter: Path, imports: str) -> Tensor:
    """Logits of a causal model and an adapter that another process loads through plain PEFT."""
    program = (
        f"import sys, torch, {imports}, transformers\n"
        f"model = transformers.AutoModelForCausalLM.from_pretrained({str(model)!r}, dtype=torch.float32)\n"
        f"import peft; model = peft.PeftModel.from_pretrained(model, {str(adapter)!r}).eval()\n"
        f"ids, mask = torch.tensor({IDS.tolist()}), torch.tensor({MASK.tolist()})\n"
        "answers = model(input_ids=ids, attention_mask=mask).logits\n"
        f"torch.save(answers.detach(), {str(adapter / 'answers.pt')!r})\n"
        "known = [name for name in sys.modules if name.startswith('pegbox')]\n"
        f"assert bool(known) == {'pegbox' in imports}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(adapter / "answers.pt", weights_only=True)


def names_that_end(module: nn.Module, *endings: str) -> list[str]:
    """Names of modules with these endings, in the order of the module."""
    return [
        name
        for name, _ in module.named_modules()
        if any(name == end or name.endswith("." + end) for end in endings)
    ]


def checksum(module: nn.Module) -> str:
    """SHA-256 over the bits of all parameters and buffers."""
    digest = sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(name.encode() + tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def recompute(module: Any, *, use_reentrant: bool) -> None:
    """Switch gradient checkpointing on, as the training engine does, and training mode with it."""
    module.enable_input_require_grads()
    inner = module.get_base_model()
    inner._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=use_reentrant))
    module.train()


def check_checkpointing(method: Attached, base: Base, *, use_reentrant: bool = False) -> None:
    """Recomputed activations give the same gradients."""
    gradients = []
    for checkpointing in (False, True):
        module = attach(method, base)
        fill(module)
        if checkpointing:
            recompute(module, use_reentrant=use_reentrant)
            for part in module.modules():  # GPT-2 drops out in training mode, the only one that checkpoints
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        forward(module).square().mean().backward()
        gradients.append({name: p.grad for name, p in trained(module).items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)  # the same sums, twice


def in_bf16(base: Base) -> Base:
    model = copy.deepcopy(base.model).to(torch.bfloat16)
    return Base(base.name, base.kind, model, base.tokenizer, "bf16", base.context)


def quick() -> pegbox.Training:
    return pegbox.Training(epochs=2, precision="float32")


def in_four_bit(base: Base) -> Base:
    """The base in bf16 with NF4 linear layers, flagged as Transformers flags what it loads so."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    model: Any = copy.deepcopy(base.model).to(torch.bfloat16)
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer is not model.get_output_embeddings():
            new = Linear4bit(
                layer.in_features, layer.out_features, False, compute_dtype=torch.bfloat16, quant_type="nf4"
            )
            new.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
            # Or the first evaluation repacks weights that another module of the base also holds.
            new.support_avx512bf16_for_cpu = False
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], new.to("cpu"))
    model.is_loaded_in_4bit = True
    return Base(base.name, base.kind, model.requires_grad_(False), base.tokenizer, "4 bit", base.context)
