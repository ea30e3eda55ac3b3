"""Loading: what a name may be, what is chosen, and one clear error for everything that can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import pegbox
from pegbox.errors import CapabilityError, InputError, PegboxError, UsageError
from pegbox.models import find_model, tokenizer
from pegbox.models._loading import _device
from pegbox.models._quiet import quietly
from tiny import tiny_base, tiny_folder

FILE = "model.safetensors"
Change = Callable[[Path], object]
Captured = pytest.CaptureFixture[str]


def change_config(**values: object) -> Change:
    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | values))

    return change


def write(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def truncate(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def make_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    (folder / FILE).rename(folder / "adapter_model.safetensors")


def lose_shard(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    where = {name: file for file, held in parts.items() for name in held}
    save_file({name: tensors[name] for name in names[:5]}, folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / FILE).unlink()


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


BROKEN: list[tuple[str, Change, type[PegboxError], str, str]] = [
    ("empty folder", lambda f: [p.unlink() for p in f.iterdir()], InputError,
     "this folder is no model", "expected: config.json and *.safetensors (found nothing)"),
    ("no config", lambda f: (f / "config.json").unlink(), InputError,
     "this folder is no model", "(found generation_config.json, model.safetensors, "),
    ("adapter", make_adapter, InputError,
     "this folder holds an adapter, not a model", "fix: name its base model here"),
    ("pickled", pickle_weights, InputError,
     "the weights are pickled (pytorch_model.bin), which could run code", "expected: *.safetensors"),
    ("no weights", lambda f: (f / FILE).unlink(), InputError,
     "no weights here", "fix: copy model.safetensors"),
    ("truncated", truncate, InputError,
     "the file is damaged or truncated: ", "model.safetensors)\n  expected: a whole safetensors file"),
    ("no safetensors", write(FILE, "not tensors at all"), InputError,
     "the file is damaged or truncated: ", FILE),
    ("missing tensor", drop_tensor, InputError, "1 tensors are missing from the weights and would be random",
     "model.layers.1.mlp.up_proj.weight"),
    ("missing layer", change_config(num_hidden_layers=3), InputError,
     "tensors are missing from the weights and would be random", "model.layers.2."),
    ("missing shard", lose_shard, InputError, "the weights cannot be loaded: ", "model-00002-of-00002"),
    ("other shape", change_config(intermediate_size=64), InputError,
     "6 tensors do not have the shape that config.json asks for",
     "model.layers.0.mlp.down_proj.weight is (32, 48), not (32, 64)"),
    ("broken config", write("config.json", '{"model_type": '), InputError,
     "config.json cannot be used: ", "is not a valid JSON file"),
    ("config is a list", write("config.json", "[1]"), InputError,
     "config.json cannot be used: ", "model_type"),
    ("unknown family", change_config(model_type="lama"), InputError,
     "config.json cannot be used: ", "model type `lama`"),
    ("wrong value", change_config(hidden_size="wide"), InputError,
     "config.json cannot be used: ", "'hidden_size' expected int, got str (value: 'wide')"),
    ("odd heads", change_config(num_attention_heads=5), InputError,
     "config.json cannot be used: ", "(32) is not a multiple of the number of attention heads (5)"),
    ("encoder-decoder by name only",
     change_config(model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True),
     InputError, "tensors are missing from the weights and would be random", "decoder.block.0"),
    ("encoder of an encoder-decoder",
     change_config(model_type="t5", architectures=["T5EncoderModel"], is_encoder_decoder=True),
     CapabilityError, "cannot tell what kind of model 'T5EncoderModel' is", "...ForConditionalGeneration"),
    ("task head", change_config(architectures=["LlamaForSequenceClassification"]), CapabilityError,
     "cannot tell what kind of model 'LlamaForSequenceClassification' is", "fix: start from the pretrained"),
    ("no architecture", change_config(architectures=None), CapabilityError,
     "cannot tell what kind of model 'llama' is", "in config.json"),
    ("masked by name only", change_config(architectures=["LlamaForMaskedLM"]), InputError,
     "the weights cannot be loaded: ", "LlamaConfig"),
    ("no tokenizer", remove_tokenizer, InputError,
     "there is no tokenizer in this folder", "expected: tokenizer.json beside the model"),
    ("broken tokenizer", write("tokenizer.json", "{"), InputError,
     "the tokenizer cannot be loaded: ", "line 1"),
    ("empty tokenizer", write("tokenizer.json", "{}"), InputError,
     "the tokenizer cannot be loaded: ", "fix: save the tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kind", "what", "detail"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_broken_model_is_one_clear_error_and_no_noise(
    change: Change,
    kind: type[PegboxError],
    what: str,
    detail: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    folder = shutil.copytree(tiny_folder("llama", "causal"), tmp_path / "model")
    change(folder)
    with pytest.raises(kind) as error:
        pegbox.load(folder)
    text = str(error.value)
    assert what in text.split("\n")[0]
    assert detail in text
    assert str(folder) in text
    assert len(text.split("\n")) <= 3  # what and where, expected, fix: no report of another library
    assert error.value.__context__ is None or error.value.__suppress_context__  # one error, one traceback
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama", "causal"), tmp_path / "model")
    tensors = load_file(folder / FILE)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:300].clone()
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    change_config(vocab_size=300)(folder)
    with pytest.raises(InputError, match="the tokenizer knows 391 tokens and the model 300"):
        pegbox.load(folder)


def test_a_folder_that_is_not_there_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-llama").mkdir()
    (tmp_path / "a-file").write_text("")
    with pytest.raises(InputError) as error:
        pegbox.load(tmp_path / "tiny-lama")
    assert str(error.value).startswith(f"no such model folder ({tmp_path / 'tiny-lama'})\n")
    assert str(error.value).endswith(f"fix: did you mean '{tmp_path / 'tiny-llama'}'?")
    with pytest.raises(InputError, match="a model is a folder, and this is a file"):
        pegbox.load(str(tmp_path / "a-file"))
    with pytest.raises(InputError, match="fix: check the path"):
        pegbox.load(tmp_path / "nowhere" / "at-all")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"did you mean 'tiny-llama'\?"):
        pegbox.load("tiny-lama")


def test_a_misspelt_embedded_model_and_an_empty_name() -> None:
    with pytest.raises(InputError, match=r"(?s)no such model \('etudes'\).*did you mean 'etude'\?"):
        find_model("etudes")
    with pytest.raises(InputError, match="no such model"):
        find_model("")


def test_a_hub_name_without_a_connection_says_so(capfd: Captured) -> None:
    with pytest.raises(InputError) as error:
        pegbox.load("pegbox-tests/no-such-model")
    assert "the model cannot be loaded" in error.value.what
    assert "HF_HUB_OFFLINE" in error.value.fix
    assert len(str(error.value).split("\n")) == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat"}, r"(?s)unknown number format \(dtype 'bfloat'\).*did you mean 'bfloat16'"),
        ({"dtype": "int8"}, "expected: auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "(?s)the device cannot be used: .*device 'gpu'.*use --device auto"),
        ({"device": "cuda:99"}, "the device cannot be used: "),
        ({"device": "meta"}, "the device cannot be used: "),
        ({"max_length": 0}, r"at least one token \(max_length 0\)"),
        ({"max_length": -3}, r"at least one token \(max_length -3\)"),
    ],
)
def test_wrong_use_is_told_before_anything_is_loaded(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pegbox.load("not even looked for", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "cards", "wanted"), [(None, 4, "cuda"), ("0", 4, "cuda"), ("3", 4, "cuda:3"), ("1", 1, "cuda")]
)
def test_each_process_of_several_has_its_own_card(
    place: str | None, cards: int, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if place is not None:
        monkeypatch.setenv("LOCAL_RANK", place)
    assert str(_device("auto")) == wanted


def test_number_formats_and_devices() -> None:
    folder = tiny_folder("llama", "causal")
    assert pegbox.load(folder, device="cpu").dtype == torch.float32  # auto on a CPU
    for name, wanted in (
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("float32", torch.float32),
    ):
        base = pegbox.load(folder, dtype=name, device="cpu")  # type: ignore[arg-type]
        assert {tensor.dtype for tensor in base.model.parameters()} == {wanted}
    assert base.device == torch.device("cpu")


def test_a_base_is_frozen_and_measures_without_dropout() -> None:
    for name, kind in (
        ("gpt2", "causal"),
        ("bert", "masked"),
        ("bert", "encoder"),
        ("t5", "encoder-decoder"),
        ("bart", "encoder-decoder"),
    ):
        base = tiny_base(name, kind)
        assert (base.kind, base.model.training) == (kind, False)
        assert not any(tensor.requires_grad for tensor in base.model.parameters())
        assert not any(module.training for module in base.module(2).modules())


def test_contexts_of_the_families() -> None:
    assert tiny_base("gpt2").context == 256
    assert tiny_base("bert", "masked").context == 256
    assert tiny_base("roberta", "masked").context == 256 - 2  # positions count from the padding id + 1
    assert pegbox.load(tiny_folder("llama", "causal"), max_length=64).context == 64
    assert pegbox.load(tiny_folder("llama", "causal"), max_length=10_000).context == 256


def test_the_context_of_relative_positions_is_the_tokenizers(tmp_path: Path) -> None:
    assert tiny_base("t5", "encoder-decoder").context == 512  # neither model nor tokenizer names a limit
    assert tiny_base("bart", "encoder-decoder").context == 256
    folder = shutil.copytree(tiny_folder("t5", "encoder-decoder"), tmp_path / "t5")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 96}))
    assert pegbox.load(folder).context == 96


def test_what_starts_a_decoder_is_read_from_the_files_and_never_guessed(tmp_path: Path) -> None:
    task = pegbox.Classify(labels=("no", "yes"))
    assert tiny_base("t5", "encoder-decoder").prepare(task).opening == (1,)  # its padding
    assert tiny_base("bart", "encoder-decoder").prepare(task).opening == (2,)  # its end of a text
    folder = shutil.copytree(tiny_folder("bart", "encoder-decoder"), tmp_path / "bart")
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"forced_bos_token_id": 0}))
    assert pegbox.load(folder).prepare(task).opening == (2, 0)
    folder = shutil.copytree(tiny_folder("t5", "encoder-decoder"), tmp_path / "t5")
    for file in ("config.json", "generation_config.json"):
        settings = json.loads((folder / file).read_text())
        settings.pop("decoder_start_token_id")
        (folder / file).write_text(json.dumps(settings))
    with pytest.raises(CapabilityError, match="does not say which token its decoder starts with") as error:
        pegbox.load(folder)
    assert "T5 starts with its padding token" in str(error.value)


def test_an_encoder_decoder_named_by_its_trunk_is_loaded_whole(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("bart", "encoder-decoder"), tmp_path / "bart")
    change_config(architectures=["BartModel"])(folder)
    base = pegbox.load(folder)
    assert base.kind == "encoder-decoder"
    assert type(base.model).__name__ == "BartForConditionalGeneration"


def test_padding_never_leaves_the_vocabulary(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama", "causal"), tmp_path / "model")
    base = pegbox.load(folder)
    base.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    while base.tokenizer.pad_token_id < 512:
        base.tokenizer.add_tokens([f"extra-{len(base.tokenizer)}"])
        base.tokenizer.pad_token = f"extra-{len(base.tokenizer) - 1}"
    assert base.tokenizer.pad_token_id >= 512
    assert base.pad == 0


def test_loading_leaves_other_libraries_as_they_were() -> None:
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        pegbox.load(tiny_folder("llama", "causal"))
        tokenizer(tiny_folder("llama", "causal"))
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def test_a_tokenizer_alone() -> None:
    assert tokenizer(tiny_folder("llama", "causal"))("yes")["input_ids"][0] == 0


def test_the_hubs_retries_are_not_told_while_a_model_loads() -> None:
    from huggingface_hub.utils import logging as hub

    retries = hub.get_logger("huggingface_hub.utils._http")  # what tells each retry, as a warning
    before = hub.get_verbosity()
    assert retries.isEnabledFor(hub.WARNING)
    with quietly():
        assert not retries.isEnabledFor(hub.WARNING)
    assert hub.get_verbosity() == before
    assert retries.isEnabledFor(hub.WARNING)
