"""Saved folders: whole or not at all, safe formats only, refused when anything does not belong together."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pegbox
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import load_adapter
from pegbox.tuning import _saving, adapter_bytes
from tuning_toy import base_of, checksum, fit, folder_of, full_forward, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32")
ALLOWED = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "pegbox.json",
    "posterior.safetensors",
    "scores.json",
    "task.json",
}


@pytest.fixture(scope="module")
def tuned() -> pegbox.Tuned:
    return fit(base_of("llama"), "closed-form", rows_of(40))


@pytest.fixture
def saved(tuned: pegbox.Tuned, tmp_path: Path) -> Path:
    return tuned.save(tmp_path / "out", scores=tuned.evaluate(rows_of(10, seed=2), resamples=5))


def load(folder: Path, **options: Any) -> pegbox.Tuned:
    return pegbox.Tuned.load(folder, **{"say": hush, **options})


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "closed-form", "lora"])
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_every_method_comes_back_the_same(method: str, kind: str, tmp_path: Path) -> None:
    base = base_of("llama" if kind == "causal" else "bert", kind)
    before = fit(base, method, rows_of(20), training=QUICK)
    scores = before.evaluate(rows_of(8, seed=2), resamples=5)
    folder = before.save(tmp_path / "deep" / "out", scores=scores)
    assert {path.name for path in folder.iterdir()} <= ALLOWED
    after = load(folder)
    probe = rows_of(6, seed=3)
    assert np.array_equal(after.probabilities(probe), before.probabilities(probe))
    assert after.predict(probe) == before.predict(probe)
    assert after.method == before.method
    assert after.cost == before.cost
    assert after.training_rows == before.training_rows
    assert after.prompt.task == before.prompt.task
    assert after.evaluate(rows_of(8, seed=2), resamples=5).metrics == scores.metrics
    assert json.loads((folder / "scores.json").read_text()) == scores.to_json()
    assert (adapter_bytes(folder) > 0) == (method in ("closed-form", "lora"))


def test_details_hold_numbers_and_no_paths(tmp_path: Path) -> None:
    for method in ("closed-form", "lora"):
        folder = tmp_path / method
        run = tmp_path / "run" / method
        fit(base_of("llama"), method, rows_of(50), training=QUICK, folder=run).save(folder)
        meta = json.loads((folder / "pegbox.json").read_text())
        assert str(tmp_path) not in json.dumps(meta)
        assert "/" not in json.dumps(meta["details"])
        assert meta["details"]


def test_saving_is_whole_or_not_at_all(
    tuned: pegbox.Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(_saving, "card", broken)
        with pytest.raises(RuntimeError, match="the disk is full"):
            tuned.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    tuned.save(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(_saving, "card", broken)
        with pytest.raises(RuntimeError, match="the disk is full"):
            tuned.save(tmp_path / "out", overwrite=True)
    assert load(tmp_path / "out", model=tuned.base).labels == tuned.labels


def test_an_existing_folder_is_kept_unless_allowed(tuned: pegbox.Tuned, saved: Path) -> None:
    with pytest.raises(UsageError, match="the output folder exists and is not empty"):
        tuned.save(saved)
    assert (saved / "scores.json").is_file()
    tuned.save(saved, overwrite=True)
    assert not (saved / "scores.json").is_file()


def test_a_folder_of_somebody_else_is_never_replaced(tuned: pegbox.Tuned, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds something that Pegbox did not write"):
        tuned.save(tmp_path / "thesis", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]


def test_another_base_is_refused(saved: Path) -> None:
    for other in (folder_of("llama", "causal", 1), base_of("llama", seed=1), folder_of("qwen3", "causal")):
        with pytest.raises(InputError, match="this adapter was made for another base than") as error:
            load(saved, model=other)
        assert str(folder_of("llama", "causal")) in error.value.expected
        assert error.value.fix == f"--model {folder_of('llama', 'causal')}, or leave --model out"


def test_a_base_that_moved_is_asked_for(saved: Path, tuned: pegbox.Tuned, tmp_path: Path) -> None:
    edit(saved / "pegbox.json", lambda meta: meta["base"].update(name=str(tmp_path / "gone")))
    with pytest.raises(
        InputError, match="the base that this was tuned on cannot be loaded: no such model folder"
    ) as e:
        load(saved)
    assert str(tmp_path / "gone") in e.value.where
    assert "say with --model where it lies now" in str(e.value)
    moved = load(saved, model=folder_of("llama", "causal"))
    assert np.array_equal(moved.probabilities(rows_of(3)), tuned.probabilities(rows_of(3)))


def test_an_encoder_is_pooled_as_it_was(tmp_path: Path) -> None:
    from dataclasses import replace

    base = replace(base_of("bert", "encoder"), pooling="cls")
    before = fit(base, "closed-form", rows_of(20))
    folder = before.save(tmp_path / "out")
    for model in (None, base_of("bert", "encoder")):
        after = load(folder, model=model)
        assert after.base.pooling == "cls"
        assert np.array_equal(after.probabilities(rows_of(4)), before.probabilities(rows_of(4)))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "posterior.safetensors"])
def test_truncated_tensors_are_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    for length in (len(content) - 10, 20, 0):
        (saved / name).write_bytes(content[:length])
        with pytest.raises(InputError, match="the file is damaged or truncated") as error:
            load(saved)
        assert error.value.where == str(saved / name)
    (saved / name).unlink()
    with pytest.raises(InputError, match="the file is missing") as error:
        load(saved)
    assert error.value.where == str(saved / name)


@pytest.mark.parametrize(
    ("name", "what"), [("adapter_model.safetensors", "adapter"), ("posterior.safetensors", "posterior")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(saved: Path, name: str, what: str, value: float) -> None:
    tensors = load_file(saved / name)
    tensors[sorted(tensors)[0]].view(-1)[0] = value
    save_file(tensors, saved / name)
    with pytest.raises(InputError, match=f"the {what} holds a value that is not a finite number"):
        load(saved)


def test_files_that_are_missing_or_no_json_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="this folder holds no tuned model") as error:
        load(tmp_path / "empty")
    assert "pegbox.json and task.json" in error.value.expected
    for name in ("task.json", "pegbox.json", "adapter_config.json"):
        content = (saved / name).read_text()
        (saved / name).write_text(content[:-5])
        with pytest.raises(InputError) as error:
            load(saved)
        assert str(saved / name) in str(error.value)
        (saved / name).write_text("[]")
        with pytest.raises(InputError) as error:
            load(saved)
        assert str(saved / name) in str(error.value)
        (saved / name).unlink()
        with pytest.raises(InputError) as error:
            load(saved)
        assert str(saved) in str(error.value)
        (saved / name).write_text(content)
    load(saved)


def test_wrong_formats_are_refused(saved: Path) -> None:
    edit(saved / "pegbox.json", lambda meta: meta.update(format=99))
    with pytest.raises(InputError, match="this folder has the format 99") as error:
        load(saved)
    assert "with the version of pegbox that wrote it" in str(error.value)
    edit(saved / "pegbox.json", lambda meta: meta.update(format=1, cost={"seconds": 1}))
    edit(saved / "pegbox.json", lambda meta: meta.pop("adapter"))
    with pytest.raises(InputError, match=r"the file lacks adapter, cost\.parameters, cost\.rows"):
        load(saved)


def test_an_unknown_method_is_told(saved: Path) -> None:
    edit(saved / "pegbox.json", lambda meta: meta["method"].update(name="closed-from"))
    with pytest.raises(UsageError, match="there is no method 'closed-from'"):
        load(saved)


def test_a_posterior_of_other_labels_is_refused(saved: Path, tmp_path: Path) -> None:
    three = fit(base_of("llama"), "closed-form", rows_of(30, 3), 3).save(tmp_path / "three")
    (saved / "posterior.safetensors").write_bytes((three / "posterior.safetensors").read_bytes())
    with pytest.raises(InputError, match="the posterior is of 3 labels") as error:
        load(saved)
    assert "2 labels" in error.value.expected


def lora_elsewhere(folder: Path, architecture: str = "llama", kind: str = "causal", /, **options: Any) -> Any:
    """A LoRA adapter as someone would make it without this package."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder_of(architecture, kind), dtype=torch.float32)
    options = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "o_proj"],
        "task_type": "CAUSAL_LM",
        **options,
    }
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        peft = get_peft_model(model, LoraConfig(**options, init_lora_weights=False))
        peft.save_pretrained(folder)
    return peft.eval()


@pytest.mark.parametrize(("architecture", "names"), [("t5", ["q", "v"]), ("bart", ["q_proj", "fc1"])])
def test_an_adapter_of_an_encoder_decoder_is_adopted(
    architecture: str, names: list[str], tmp_path: Path
) -> None:
    kind = "encoder-decoder"
    options = {"target_modules": names, "task_type": "SEQ_2_SEQ_LM"}
    peft = lora_elsewhere(tmp_path / "theirs", architecture, kind, **options)
    task, rows = task_of(template="{text} It was {answer}"), rows_of(6, seed=3)
    base = base_of(architecture, kind)
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task, say=hush)
    encoded = tuned.prompt.encode(rows)
    whole = full_forward(peft, encoded)[:, list(tuned.prompt.tokens)]
    torch.testing.assert_close(tuned.logits(rows), whole, rtol=1e-4, atol=2e-5)
    for at, ids in enumerate(encoded.ids):
        # The first word that it says by itself is the one that the readout would find most likely.
        said = tuned.module.generate(
            input_ids=torch.tensor([ids]),
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            forced_eos_token_id=None,
        )
        first = full_forward(tuned.module, encoded)[at].argmax()
        assert said[0].tolist() == [*encoded.decoder, int(first)]


@pytest.mark.parametrize(
    "options", [{}, {"target_modules": r".*\.1\..*v_proj"}, {"modules_to_save": ["lm_head"]}]
)
def test_an_adapter_made_elsewhere_is_adopted(options: dict[str, Any], tmp_path: Path) -> None:
    peft = lora_elsewhere(tmp_path / "theirs", **options)
    base = base_of("llama")
    before = checksum(base.model)
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(), say=hush)
    assert checksum(base.model) == before
    rows = rows_of(12, seed=3)
    whole = full_forward(peft, tuned.prompt.encode(rows))[:, list(tuned.prompt.tokens)]
    # float32 sums in another order.
    torch.testing.assert_close(tuned.logits(rows), whole, rtol=1e-4, atol=2e-5)
    assert tuned.method.options()["rank"] == 4
    assert tuned.cost.parameters > 0
    scores = tuned.evaluate(rows, resamples=5)
    assert scores.flips is not None
    folder = tuned.save(tmp_path / "ours", scores=scores)
    again = load(folder, model=base)
    assert np.array_equal(again.probabilities(rows), tuned.probabilities(rows))


def test_an_adapter_names_its_own_base(tmp_path: Path) -> None:
    lora_elsewhere(tmp_path / "theirs")
    tuned = pegbox.Tuned.from_adapter(
        tmp_path / "theirs", task=task_of(label_words=("yes", "yes yes")), say=hush
    )
    assert tuned.base.name == str(folder_of("llama", "causal"))
    rows = rows_of(4)
    # Words that share a token are scored whole, with the adapter on.
    assert not torch.allclose(tuned.logits(rows), pegbox.tuning.base_alone(tuned).logits(rows))


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    lora_elsewhere(theirs)
    with pytest.raises(InputError, match="this folder holds an adapter that pegbox did not write") as error:
        load(theirs)
    assert "pegbox.Tuned.from_adapter(folder, task=...)" in str(error.value)
    with pytest.raises(InputError, match="the adapter does not fit") as error:
        pegbox.Tuned.from_adapter(theirs, base=base_of("gpt2"), task=task_of(), say=hush)
    assert "an adapter made for this base" in str(error.value)
    with pytest.raises(InputError, match="the adapter does not fit"):
        pegbox.Tuned.from_adapter(theirs, base=base_of("qwen3"), task=task_of(), say=hush)
    path = theirs / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    lost = {key: value for key, value in tensors.items() if key != name}
    save_file(lost, path)
    with pytest.raises(InputError, match="is missing") as error:
        pegbox.Tuned.from_adapter(theirs, base=base_of("llama"), task=task_of(), say=hush)
    assert name in str(error.value)
    extra = {**tensors, "base_model.model.model.embed_tokens.weight": torch.zeros(512, 32)}
    save_file(extra, path)
    before = checksum(base_of("llama").model)
    with pytest.raises(InputError, match=r"embed_tokens\.weight has no place"):
        pegbox.Tuned.from_adapter(theirs, base=base_of("llama"), task=task_of(), say=hush)
    assert checksum(base_of("llama").model) == before


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'", "path_initial_model_for_weight"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'", "path_initial_model_for_weight"),
        ({"bias": "all"}, "biases of the base itself", "merge it into its base"),
        ({"bias": "lora_only"}, "biases of the base itself", "merge it into its base"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING takes tokens or other adapters", "merge it"),
        ({"peft_type": "XLORA"}, "XLORA takes tokens or other adapters", "merge it"),
        ({"peft_type": "NONE_SUCH"}, "knows no adapter of the type 'NONE_SUCH'", "update PEFT"),
    ],
)
def test_an_adapter_that_would_change_the_base_is_refused(
    settings: dict[str, Any], what: str, fix: str, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    base = base_of("gpt2")
    whole = get_peft_model(base.module(2), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    whole.save_pretrained(tmp_path)
    if "bias" in settings:  # with the tensors that PEFT itself writes for it
        path = tmp_path / "adapter_model.safetensors"
        biases = {
            f"base_model.model.{name}": value + 1
            for name, value in base.model.named_parameters()
            if name.endswith("bias") and (settings["bias"] == "all" or "c_attn" in name)
        }
        save_file(load_file(path) | biases, path)
    edit(tmp_path / "adapter_config.json", lambda config: config.update(settings))
    before = checksum(base.model)
    with pytest.raises(CapabilityError, match=what) as error:
        load_adapter(base, 2, tmp_path)
    assert fix in str(error.value)
    assert checksum(base.model) == before


def test_other_adapters_and_headless_encoders_are_refused(tmp_path: Path) -> None:
    from peft import IA3Config, LoraConfig, get_peft_model

    for name, config in (
        ("ia3", IA3Config(target_modules=["query"], feedforward_modules=[])),
        ("lora", LoraConfig(target_modules=["query"])),
    ):
        get_peft_model(base_of("bert", "encoder").module(2), config).save_pretrained(tmp_path / name)
    with pytest.raises(CapabilityError, match="the adapter is of the type IA3") as error:
        pegbox.Tuned.from_adapter(tmp_path / "ia3", base=base_of("bert", "encoder"), task=task_of(), say=hush)
    assert "a LORA adapter" in str(error.value)
    with pytest.raises(CapabilityError, match="the adapter brings no head"):
        pegbox.Tuned.from_adapter(
            tmp_path / "lora", base=base_of("bert", "encoder"), task=task_of(), say=hush
        )
    edit(
        tmp_path / "lora" / "adapter_config.json", lambda config: config.update(base_model_name_or_path=None)
    )
    with pytest.raises(InputError, match="the adapter does not name its base"):
        pegbox.Tuned.from_adapter(tmp_path / "lora", task=task_of(), say=hush)


def test_an_encoder_with_a_saved_head_is_adopted(tmp_path: Path) -> None:
    base = base_of("bert", "encoder")
    before = fit(base, "lora", rows_of(20), training=QUICK)
    folder = before.save(tmp_path / "out")
    for name in ("pegbox.json", "task.json"):
        (folder / name).unlink()
    after = pegbox.Tuned.from_adapter(folder, base=base, task=task_of(), say=hush)
    assert np.array_equal(after.probabilities(rows_of(4)), before.probabilities(rows_of(4)))
