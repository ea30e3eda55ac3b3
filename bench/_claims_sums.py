"""Claims of the pages about linear algebra, number formats and 4 bits: how each is measured and told."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _common as common


def spent(work: Callable[[], Any], repeats: int) -> float:
    """Median processor time of a call, after one call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return common.median(times)


def left_out(quick: bool) -> common.Cell:
    """Approximate leave-one-out log-loss of the log loss against real refits."""
    import torch

    # The solver is not public by itself.
    from pegbox.methods import _least_squares as ls

    lines = []
    for rows, width, labels in ((60, 7, 3), (40, 60, 4), (50, 10, 2), (100, 20, 3)):
        for seed in range(1 if quick else 5):
            make = torch.Generator().manual_seed(seed)
            Z = torch.randn(rows, width, generator=make, dtype=torch.float64) + 1.5
            truth = torch.randn(width, labels, generator=make, dtype=torch.float64) / width**0.5
            L, noise = torch.randn(2, rows, labels, generator=make, dtype=torch.float64)
            gold = (L + 2 * (Z - 1.5) @ truth + noise).argmax(dim=1)
            gold[:labels] = torch.arange(labels)
            best = ls.choose_newton(Z, L, gold).penalty
            for share in (1.0,) if quick else (1.0, 0.1, 0.01):
                told = float(ls.choose_newton(Z, L, gold, penalties=[best * share]).table[0, 2])
                logits = []
                for row in range(rows):
                    rest = torch.arange(rows) != row
                    fit = ls.newton(Z[rest], L[rest], gold[rest], penalty=best * share)
                    logits.append(fit.logits(Z[row], L[row]))
                exact = float(torch.nn.functional.cross_entropy(torch.stack(logits), gold))
                lines.append({"rows": rows, "share": share, "off": told / exact - 1})
    return {"lines": lines}


def told_left_out(cell: common.Cell) -> str:
    """One line per share of the chosen penalty."""
    shares = list(dict.fromkeys(line["share"] for line in cell["lines"]))
    lines = []
    for share in shares:
        off = [100 * line["off"] for line in cell["lines"] if line["share"] == share]
        lines.append([f"{share:g}", str(len(off)), f"{common.median(off):+.2f} %", f"{min(off):+.2f} %",
                      f"{max(off):+.2f} %"])  # fmt: skip
    header = ["penalty over the chosen one", "problems", "median", "lowest", "highest"]
    intro = (
        "Leave-one-out log-loss of the log loss by one Newton step per row, over that of real refits, less "
        "one; random problems of 40 to 100 rows, 7 to 60 features and 2 to 4 labels:"
    )
    return f"{intro}\n\n{common.markdown(header, lines)}"


def losses(quick: bool) -> common.Cell:
    """Time of both losses, and of both decompositions, on features of all-MiniLM-L6-v2."""
    import torch

    import pegbox
    from pegbox.methods import _least_squares as ls
    from pegbox.models import extract

    def squared(Z: Any, L: Any, gold: Any, way: Any = None) -> None:
        spectrum = ls.Spectrum.of(Z, decomposition=way)
        chosen = ls.choose_penalty(Z, L, gold, spectrum=spectrum)
        ls.solve(Z, L, gold, penalty=chosen.penalty, smoothing=chosen.smoothing, spectrum=spectrum)

    def log(Z: Any, L: Any, gold: Any) -> None:
        spectrum = ls.Spectrum.of(Z)
        chosen = ls.choose_newton(Z, L, gold, spectrum=spectrum)
        ls.newton(Z, L, gold, penalty=chosen.penalty, spectrum=spectrum)

    base = pegbox.load(common.model_path("minilm"))
    lines = []
    for data in ("sst2",) if quick else ("sst2", "snli"):
        task, rows = common.task_and_rows(data)
        rows = common.part(rows, 100 if quick else 1000)
        prompt = base.prepare(task)
        found = extract(base, prompt, prompt.encode(rows), say=common.hush)
        problem = (found.hidden.double(), found.logits.double(), torch.tensor(task.gold(rows)))
        ways: dict[str, Callable[..., None]] = {
            "squared": squared,
            "log": log,
            "svd": partial(squared, way="svd"),
            "gram": partial(squared, way="gram"),
        }
        times = {name: spent(partial(way, *problem), 1 if quick else 3) for name, way in ways.items()}
        lines.append({"data": data, "labels": len(task.labels), "rows": len(rows), **times})
    return {"lines": lines}


def told_losses(cell: common.Cell) -> str:
    """The table."""
    lines = [
        [
            line["data"],
            f"{line['rows']:,}",
            str(line["labels"]),
            *(common.seconds(line[name]) for name in ("squared", "log")),
            f"{line['log'] / line['squared']:.1f}",
            *(common.seconds(line[name]) for name in ("svd", "gram")),
            f"{line['gram'] / line['svd']:.2f}",
        ]
        for line in cell["lines"]
    ]
    header = ["data", "rows", "labels", "squared", "log", "log, times", "squared by svd", "by gram", "times"]
    intro = (
        "Processor time on one core to decompose features of width 384 (all-MiniLM-L6-v2), choose the "
        "penalty by leave-one-out and solve, by both losses; and by both decompositions for the squared loss:"
    )
    return f"{intro}\n\n{common.markdown(header, lines)}"


def probit(quick: bool) -> common.Cell:
    """Error of the mean-field probit on random normal logits."""
    import torch

    from pegbox.uncertainty import Predictive

    rows, lines = 100 if quick else 2000, []
    for labels in (2, 4):
        make = torch.Generator().manual_seed(labels)
        mean = 2 * torch.randn(rows, labels, generator=make, dtype=torch.float64)
        root = torch.randn(rows, labels, labels, generator=make, dtype=torch.float64)
        centre = torch.eye(labels, dtype=torch.float64) - 1 / labels
        size = 4 * torch.rand(rows, 1, 1, generator=make, dtype=torch.float64)
        covariance = centre @ (size * root @ root.mT) @ centre
        found = Predictive(mean, covariance)
        off = (found.probabilities("probit") - found.probabilities("auto", samples=16384)).abs()
        lines.append({"labels": labels, "largest": float(off.max()), "mean": float(off.mean())})
    return {"lines": lines, "rows": rows}


def told_probit(cell: common.Cell) -> str:
    """One sentence."""
    told = "; ".join(
        f"with {line['labels']} labels by {line['largest']:.3f} at the most and {line['mean']:.3f} on average"
        for line in cell["lines"]
    )
    return (
        f"The probit errs {told}, on {cell['rows']:,} rows of random normal logits whose means have a "
        "standard deviation of 2 and whose covariances are random matrices of 0 to 4 times a Wishart's."
    )


def attention(quick: bool) -> common.Cell:
    """Time of attention with its backward pass in bf16 over that in float32."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    lines = []
    for tokens in (32,) if quick else (32, 128, 256, 512, 1024):
        times = {}
        for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            make = torch.Generator().manual_seed(0)
            q, k, v = (
                torch.randn(4, 4, tokens, 64, generator=make).to(kind).requires_grad_() for _ in range(3)
            )

            def step(q: Any = q, k: Any = k, v: Any = v) -> None:
                scaled_dot_product_attention(q, k, v, is_causal=True).float().sum().backward()

            times[name] = spent(step, max(5, 4096 // tokens))
        lines.append({"tokens": tokens, **times})
    return {"lines": lines, "native": torch.cpu._is_avx512_bf16_supported()}


def told_attention(cell: common.Cell) -> str:
    """The table."""
    lines = [
        [str(line["tokens"]), common.seconds(line["float32"]), common.seconds(line["bf16"]),
         f"{line['bf16'] / line['float32']:.1f}"]
        for line in cell["lines"]
    ]  # fmt: skip
    native = "with AVX512-BF16" if cell["native"] else "without AVX512-BF16"
    return (
        f"torch's causal attention of 4 rows, 4 heads of 64, forward and backward, on one core {native} "
        "(processor time):\n\n"
        + common.markdown(["tokens", "float32", "bf16", "times as long in bf16"], lines)
    )


def casts(quick: bool) -> common.Cell:
    """Time to cast the weights of the linear layers to bf16 once, over a LoRA step that casts them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=4096, hidden_size=256, num_hidden_layers=2 if quick else 8,
                         num_attention_heads=4, num_key_value_heads=4, intermediate_size=688)  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    weights = [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    ids = torch.randint(4096, (16, 48))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()

    def cast() -> None:
        for weight in weights:
            weight.to(torch.bfloat16)

    return {"step": spent(step, 1 if quick else 5), "cast": spent(cast, 1 if quick else 5)}


def told_casts(cell: common.Cell) -> str:
    """One sentence."""
    return (
        f"Casting the weights of all linear layers of a random Llama (8 layers of 256) to bf16 once takes "
        f"{common.seconds(cell['cast'])}, {100 * cell['cast'] / cell['step']:.1f} % of a step of LoRA "
        f"on 16 rows of 48 tokens ({common.seconds(cell['step'])}), on one core (processor time)."
    )


def four_bits(quick: bool) -> common.Cell:
    """Error of weights that bitsandbytes unpacks on a processor, by whether rows are whole blocks."""
    import bitsandbytes
    import torch

    nn: Any = bitsandbytes.nn

    def worst(width: int, seed: int) -> float:
        torch.manual_seed(seed)
        W = torch.randn(64, width)
        layer: Any = nn.Linear4bit(width, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
        layer.weight = nn.Params4bit(W, requires_grad=False, quant_type="nf4")
        with torch.no_grad():
            read = layer.to("cpu").train()(torch.eye(width)).T
        blocks = W.flatten().split(64)
        off = (read - W).abs().flatten().split(64)
        return max(float(a.max() / b.abs().max()) for a, b in zip(off, blocks, strict=True))

    widths = (64, 128, 48, 80, 96)
    found = {str(width): max(worst(width, seed) for seed in range(1 if quick else 20)) for width in widths}
    return {"worst": found, "bitsandbytes": bitsandbytes.__version__}


def told_four_bits(cell: common.Cell) -> str:
    """One sentence."""
    told = ", ".join(f"{width}: {value:.2f}" for width, value in cell["worst"].items())
    return (
        f"Largest error of a weight, over the largest value of its block of 64, in layers of 64 random rows "
        f"that bitsandbytes {cell['bitsandbytes']} unpacks on a processor, by width: {told}."
    )
