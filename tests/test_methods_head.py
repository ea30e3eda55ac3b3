"""The head: on a frozen trunk of any kind, read at the right token, back from disk, and by PEFT alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

import pegbox
from pegbox.errors import CapabilityError, InputError
from pegbox.models import FeatureCache, PooledClassifier, answer_logits, collate
from pegbox.models._encoder import pool
from tuning_toy import base_of, checksum, fit, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=3, precision="float32")
KINDS = [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked"), ("bert", "encoder")]


def test_pooling_takes_the_last_real_token_wherever_the_padding_is() -> None:
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert pool(hidden, mask, "last").flatten().tolist() == [1.0, 7.0]
    assert pool(hidden, mask, "none") is hidden


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_causal_head_reads_the_last_token_even_where_it_is_the_padding_token(architecture: str) -> None:
    base = base_of(architecture).headed()
    classifier = base.module(2)
    torch.nn.init.normal_(classifier.score.weight)
    rows = [[5, 6, base.pad], [7, 8, 9, 10, base.pad, base.pad]]
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[base.pad] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    together = classifier(ids, mask, token_type_ids=torch.ones_like(ids))  # which GPT-2 would add as words
    for index, row in enumerate(rows):
        alone = base.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
        torch.testing.assert_close(together[index], classifier.score(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "kind"), KINDS[:3])
def test_headed_is_the_same_weights_without_output_layer(architecture: str, kind: str) -> None:
    base = base_of(architecture, kind)
    headed = base.headed()
    assert (headed.kind, headed.fingerprint, headed.name) == ("encoder", base.fingerprint, base.name)
    assert headed.pooling == ("last" if kind == "causal" else "mean")
    known = {id(value) for value in base.model.parameters()}
    assert all(id(value) in known for value in headed.model.parameters())
    assert headed.headed() is headed
    assert headed.headed("cls").pooling == "cls"
    scores = headed.headed("none").module(3)(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long))
    assert scores.shape == (1, 3, 3)


def test_an_encoder_decoder_has_no_head() -> None:
    with pytest.raises(CapabilityError, match="a head needs a trunk below the output layer") as error:
        base_of("t5", "encoder-decoder").headed()
    assert "label words (readout words)" in error.value.fix
    with pytest.raises(CapabilityError, match=r"head cannot work on an? encoder-decoder model") as error:
        fit(base_of("t5", "encoder-decoder"), "head", rows_of(16))
    assert "use lora or full" in error.value.fix


def test_the_cache_tells_a_head_from_label_words(tmp_path: Path) -> None:
    base, cache = base_of("llama"), FeatureCache(tmp_path)
    keys = []
    for one in (base, base.headed(), base.headed("mean")):
        prompt = one.prepare(task_of())
        keys.append(cache.key(one, prompt, prompt.encode(rows_of(3)), (0, 1)))
    assert len({repr(key) for key in keys}) == 3


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_head_trains_its_layer_alone_and_comes_back(architecture: str, kind: str, tmp_path: Path) -> None:
    base = base_of(architecture, kind)
    before = checksum(base.model)
    told: list[str] = []
    tuned = fit(base, "head", rows_of(40), training=QUICK, say=told.append)
    assert checksum(base.model) == before
    assert tuned.cost.parameters == tuned.method.parameters(base, tuned.prompt) == 2 * 33  # K (d + 1), d = 32
    assert (tuned.prompt.task.readout == "head") == (kind != "encoder")
    assert any("readout head instead of label words" in line for line in told) == (kind != "encoder")
    assert any("template and label words not used: a" in line for line in told)
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    rows = rows_of(6, seed=3)
    assert torch.equal(again.logits(rows), tuned.logits(rows))
    whole = answer_logits(tuned.module, tuned.base, tuned.prompt, tuned.prompt.encode(rows)).logits
    torch.testing.assert_close(tuned.logits(rows), whole, rtol=1e-5, atol=1e-6)  # cached features serve it
    assert tuned.evaluate(rows, resamples=5).flips is None
    plain = PeftModel.from_pretrained(tuned.base.module(2), str(tmp_path / "out")).eval()
    batch = collate(tuned.prompt.encode(rows), range(6), kind="encoder", pad=base.pad)
    batch.pop("answer_positions")
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch), whole, rtol=1e-5, atol=1e-6)


def test_a_frozen_trunk_has_no_dropout_while_its_head_learns() -> None:
    module: Any = pegbox.Head().attach(
        base_of("bert", "encoder"), base_of("bert", "encoder").prepare(task_of()), seed=0
    )
    module.train()
    inner = module.get_base_model()
    assert isinstance(inner, PooledClassifier)
    assert inner.training
    assert not any(part.training for part in inner.encoder.modules())
    tuned: Any = pegbox.LoRA().attach(
        base_of("bert", "encoder"), base_of("bert", "encoder").prepare(task_of()), seed=0
    )
    assert all(part.training for part in tuned.train().get_base_model().encoder.modules())


@pytest.mark.parametrize("method", ["closed-form", "lora", "full"])
def test_other_methods_read_by_a_head_when_asked(method: str, tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), method, rows_of(24), task=task_of(readout="head"), training=QUICK)
    assert tuned.base.kind == "encoder"
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    rows = rows_of(5, seed=3)
    torch.testing.assert_close(again.logits(rows), tuned.logits(rows), rtol=0, atol=0)
    assert again.base.pooling == "last"


def test_tasks_say_how_they_are_read() -> None:
    assert pegbox.Classify.from_json(task_of(readout="head").to_json()).readout == "head"
    old = task_of().to_json()
    del old["readout"]
    assert pegbox.Classify.from_json(old).readout == "words"
    with pytest.raises(InputError, match="unknown readout") as error:
        task_of(readout="heads")
    assert error.value.expected == "words or head"


def test_a_head_from_elsewhere_is_adopted(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "head", rows_of(24), training=QUICK)
    folder = tuned.save(tmp_path / "out")
    task = task_of(readout="head")
    adopted = pegbox.Tuned.from_adapter(folder, task=task, base=base_of("llama"), say=hush)
    assert adopted.method == pegbox.Head()
    assert adopted.cost.parameters == 66
    assert torch.equal(adopted.logits(rows_of(5)), tuned.logits(rows_of(5)))


def test_a_head_alone_is_what_gradient_descent_finds() -> None:
    """The log-loss closed form is the optimum of the same model, so long training must come near its loss."""
    base = base_of("llama")
    rows, task = rows_of(40), task_of(readout="head")
    long = pegbox.Training(epochs=150, precision="float32", learning_rate=3e-2, patience=0, weight_decay=0.0)
    gold = torch.tensor(task.gold(rows))
    penalty = {"loss": "log", "penalty": 1e-2}
    best = fit(base, pegbox.ClosedForm(**penalty), rows, task=task).logits(rows)
    head = fit(base, "head", rows, task=task, training=long, valid=rows_of(4)).logits(rows)
    loss = torch.nn.functional.cross_entropy
    start = float(torch.log(torch.tensor(2.0)))
    # Neither regularised alike nor run to the end: most of the way from ln 2 to the optimum is enough.
    assert loss(head, gold) < start - 0.5 * (start - loss(best, gold))
