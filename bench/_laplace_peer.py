"""The peers' side of laplace.py, run by their own environment: bayesian-lora 0.0.6 and laplace-torch 0.3."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import _common as common

# As in bayesian-lora's own example (examples/configs/example_usage.yaml).
KFAC_RANK, LOW_RANK_FROM = 10, 100
# A prior so narrow that the rows add nothing: what remains is the Jacobian's inner products.
NARROW = 1e8
CHECKED = 8

Found = TypeVar("Found")


@dataclass(frozen=True)
class Order:
    """What to measure.

    Args:
        peer: ``bayesian-lora`` or ``laplace-torch``.
        model: Folder of the base.
        adapter: Folder of the PEFT adapter.
        rows: File with the token ids of ``train`` and ``test``, ``gold`` and the ``answers``' tokens.
        precision: Prior precision.
        fit_batch: Rows a batch to fit.
        predict_batch: Rows a batch to predict.
        attention: transformers' ``attn_implementation``.
        last: Whether the model gives the last token's logits alone, and not those of all tokens.
        train: So many training rows.
        test: So many test rows.
        check: Whether to ask some rows again under a prior so narrow that the curvature does not matter.
    """

    peer: str
    model: str
    adapter: str
    rows: str
    precision: float
    fit_batch: int
    predict_batch: int
    attention: str
    last: bool
    train: int
    test: int
    check: bool


def timed(work: Callable[[], Found]) -> tuple[Found, dict[str, float]]:
    """Return what ``work`` gives with its seconds and the high-water mark of resident memory."""
    common.reset_peak()
    started, busy = time.perf_counter(), time.process_time()
    found = work()
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    return found, {"seconds": seconds, "processor": processor, "peak": common.peak_resident()}


# Rows


class Batches(list):
    """Batches as a loader gives them, of rows of like length, with the rows they came from."""

    def __init__(self, ids: Sequence[Sequence[int]], gold: Sequence[int], size: int, pad: int, keep: bool):
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        groups = [order[at : at + size] for at in range(0, len(order), size)]
        super().__init__(_batch(ids, gold, group, pad, keep) for group in groups)
        self.dataset, self.order = order, order


def _batch(
    ids: Sequence[Sequence[int]], gold: Sequence[int], group: Sequence[int], pad: int, keep: bool
) -> tuple[Any, Any]:
    """One batch, padded on the left, so that the last token is the last of every row."""
    import torch
    from transformers import BatchEncoding

    longest = max(len(ids[row]) for row in group)
    gaps = [longest - len(ids[row]) for row in group]
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor(
            [[pad] * gap + list(ids[row]) for gap, row in zip(gaps, group, strict=True)]
        ),
        "attention_mask": torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
    }
    if keep:
        inputs["logits_to_keep"] = 1
    return BatchEncoding(inputs), torch.tensor([gold[row] for row in group])


def back(batches: Batches, parts: Sequence[Any]) -> Any:
    """Batches' results under one another, in the rows' own order."""
    import torch

    return torch.cat(list(parts))[torch.tensor(batches.order).argsort()]


def centred(covariance: Any) -> Any:
    """The covariance of logits less their mean, which the softmax ignores."""
    less = covariance.double() - covariance.double().mean(1, keepdim=True)
    return less - less.mean(2, keepdim=True)


# Peers


class BayesianLora:
    """As the README and the example of bayesian-lora 0.0.6 call it.

    Its factors' curvature is 1/batch of the rows' sum; a prior variance of ``batch`` times that wanted, and
    variances divided by ``batch``, undo that, so that the posteriors can be compared.
    """

    def __init__(self, model: Any, order: Order, answers: Sequence[int]) -> None:
        import torch

        self.model, self.order = model, order
        self.answers = torch.tensor(list(answers))
        self.rank = model.peft_config["default"].r
        self.factors: Any = None
        self.batch = order.fit_batch

    def _logits(self, outputs: Any) -> Any:
        return outputs.logits[:, -1][:, self.answers]

    def fit(self, batches: Batches) -> None:
        import torch
        from bayesian_lora import calculate_kronecker_factors, cholesky_decompose_small_factors

        self.batch = len(batches[0][1])
        factors = calculate_kronecker_factors(
            self.model,
            lambda model, batch: self._logits(model(**batch[0])),
            batches,
            KFAC_RANK,
            LOW_RANK_FROM,
            ["lora"],
        )
        self.factors = cholesky_decompose_small_factors(factors, LOW_RANK_FROM, "cpu", torch.float32)

    def predict(self, batches: Batches, precision: float) -> tuple[Any, Any]:
        import torch
        from bayesian_lora import variance
        from bayesian_lora.main import jacobian_mean

        wide = torch.tensor(self.batch / precision)
        means, covariances = [], []
        with torch.no_grad():
            for inputs, _ in batches:
                jacobian, mean = jacobian_mean(self.model, inputs, output_callback=self._logits)
                means.append(mean)
                arguments = (len(self.answers), self.rank, KFAC_RANK, "cpu")
                covariances.append(variance(inputs, jacobian, self.factors, wide, *arguments) / self.batch)
        return back(batches, means), back(batches, covariances)


class LaplaceTorch:
    """As laplace-torch 0.3 documents it for LoRA: all weights that want gradients, Kronecker factors."""

    def __init__(self, model: Any, order: Order, answers: Sequence[int]) -> None:
        from torch import nn

        tokens = list(answers)

        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, data: Any) -> Any:
                given = {name: value for name, value in data.items() if name != "labels"}
                return self.model(**given).logits[:, -1][:, tokens]

        self.model, self.precision = Wrapped().eval(), order.precision
        self.posterior: Any = None

    def fit(self, batches: Batches) -> None:
        # By its name, since laplace.py beside this file has the same one.
        self.posterior = import_module("laplace").Laplace(
            self.model,
            likelihood="classification",
            subset_of_weights="all",
            hessian_structure="kron",
            prior_precision=self.precision,
        )
        loader = Batches.__new__(Batches)
        list.__init__(loader, [UserDict({**inputs, "labels": gold}) for inputs, gold in batches])
        loader.dataset = batches.dataset
        self.posterior.fit(loader)

    def predict(self, batches: Batches, precision: float) -> tuple[Any, Any]:
        self.posterior.prior_precision = precision
        found = [self.posterior._glm_predictive_distribution(UserDict(inputs)) for inputs, _ in batches]
        return back(batches, [mean for mean, _ in found]), back(batches, [own for _, own in found])


USED = {"bayesian-lora": ("torch", "transformers", "peft"), "laplace-torch": ("curvlinops-for-pytorch",)}
PEERS: dict[str, Any] = {"bayesian-lora": BayesianLora, "laplace-torch": LaplaceTorch}


def run(order: Order) -> common.Cell:
    """Fit and predict, after two short rows that count for nothing."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    rows = json.loads(Path(order.rows).read_text("utf-8"))
    base = AutoModelForCausalLM.from_pretrained(
        order.model, dtype=torch.float32, attn_implementation=order.attention
    )
    model = PeftModel.from_pretrained(base, order.adapter, is_trainable=True)
    pad = base.config.pad_token_id

    def batches(name: str, count: int, size: int) -> Batches:
        gold = rows["gold"] if name == "train" else [0] * len(rows["test"])
        return Batches(rows[name][:count], gold, size, pad, order.last)

    peer = PEERS[order.peer](model, order, rows["answers"])
    few = batches("test", 4, 4)
    peer.fit(few)
    peer.predict(few, order.precision)
    train = batches("train", order.train, order.fit_batch)
    test = batches("test", order.test, order.predict_batch)
    before = common.settle()
    _, fit = timed(lambda: peer.fit(train))
    common.settle()
    (mean, covariance), predict = timed(lambda: peer.predict(test, order.precision))
    found = {
        "fit": fit,
        "predict": predict,
        "before": before,
        "mean": mean.double().tolist(),
        "covariance": centred(covariance).tolist(),
        "peers": {name: version(name) for name in (order.peer, *USED[order.peer])},
    }
    if order.check:
        _, prior = peer.predict(batches("test", CHECKED, 2), NARROW)
        found["prior"] = (centred(prior) * NARROW).tolist()
    return found


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.path.remove(str(Path(__file__).parent))  # where laplace.py would stand before the package
    with common.threads(1):
        print(json.dumps(run(Order(**json.loads(sys.argv[1])))))
