"""Texts as windows of tokens: what is asked, and how many bytes it stands for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pegbox.errors import CapabilityError
from pegbox.models import IGNORED, Base, LanguageRows
from tiny import TEXT, tiny_base

# One, two, three and four bytes per character; the toy tokenizer says most of them byte by byte.
MIXED = ("plain words", "naïve café", "日本語のテスト", "a 🫖 and a 🎵!", "  spaces  around  ")
KINDS = [("llama", "causal"), ("bert", "masked")]


def size(text: str) -> int:
    return len(text.encode())


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
@pytest.mark.parametrize("length", [6, 512])
def test_tokens_stand_for_all_bytes_of_a_document(architecture: str, kind: str, length: int) -> None:
    rows = LanguageRows(tiny_base(architecture, kind), MIXED, length=length)
    found = np.zeros(len(MIXED), dtype=int)
    for window in rows.windows:
        found[window.document] += sum(window.sizes)
    assert found.tolist() == list(map(size, MIXED))


def test_a_causal_model_is_asked_every_byte_once() -> None:
    assert LanguageRows(tiny_base("llama"), MIXED, length=6).sizes().tolist() == list(map(size, MIXED))


def test_the_bytes_of_a_character_in_several_tokens_count_once() -> None:
    rows = LanguageRows(tiny_base("llama"), ["🫖"])
    assert len(rows.windows[0].ids) > 1
    assert sorted(rows.windows[0].sizes)[-2:] == [0, 4]


def test_a_tokenizer_without_a_first_token_leaves_the_first_of_each_window_out() -> None:
    base = tiny_base("llama")
    tokenizer: Any = type(base.tokenizer)(tokenizer_object=without_start(base), pad_token="</s>")
    rows = LanguageRows(replace(base, tokenizer=tokenizer), [TEXT[0], "a"], length=8)
    assert [rows.asked(at)[0] for at in range(len(rows))] == [1] * len(rows)
    lost = sum(window.sizes[0] for window in rows.windows)
    # The second document is one token, of which nothing can be asked.
    assert rows.sizes().tolist() == [size(TEXT[0]) - lost, 0]
    assert rows.nats(base.model)[1] == 0


def without_start(base: Base) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(base.tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    tokenizer.post_processor = None
    return tokenizer


def test_a_slow_tokenizer_shares_the_bytes_out_evenly() -> None:
    class Slow:
        is_fast = False

        def __call__(self, texts: Any, **options: Any) -> Any:
            assert options.get("return_offsets_mapping") is not True
            return base.tokenizer(texts, **{k: v for k, v in options.items() if "offsets" not in k})

        def __getattr__(self, name: str) -> Any:
            return getattr(base.tokenizer, name)

    base = tiny_base("llama")
    slow: Any = Slow()
    rows = LanguageRows(replace(base, tokenizer=slow), MIXED)
    assert rows.sizes().tolist() == list(map(size, MIXED))


@pytest.mark.parametrize(("architecture", "kind"), [*KINDS, ("gpt2", "causal"), ("roberta", "masked")])
def test_nats_are_those_of_plain_logits_window_by_window(architecture: str, kind: str) -> None:
    base = tiny_base(architecture, kind)
    texts = [*MIXED, " ".join(TEXT[:3])]
    rows = LanguageRows(base, texts, seed=5, length=24)
    wanted = np.zeros(len(texts))
    for index, window in enumerate(rows.windows):
        batch = rows.collate([index])
        targets = batch.pop("targets")
        with torch.no_grad():
            logits = base.model(**batch).logits.double()
        asked = targets != IGNORED
        assert int(asked.sum()) == rows.answers(index)
        loss = functional.cross_entropy(logits[asked], targets[asked], reduction="sum")
        wanted[window.document] += float(loss)
    # Float32 logits of batches of another shape.
    np.testing.assert_allclose(rows.nats(base.model), wanted, rtol=1e-5)


def test_masks_are_seeded_and_others_in_another_pass() -> None:
    base = tiny_base("bert", "masked")
    text = " ".join(TEXT[:3])
    rows, same, other = (LanguageRows(base, [text] * 3, seed=seed) for seed in (1, 1, 2))
    assert [rows.asked(at) for at in range(3)] == [same.asked(at) for at in range(3)]
    assert [rows.asked(at) for at in range(3)] != [other.asked(at) for at in range(3)]
    assert rows.asked(0) != rows.asked(3)  # the same window in the next pass
    batch = rows.collate([4])
    places = (batch["targets"] != IGNORED).nonzero()[:, 1]
    assert (batch["input_ids"][0, places] == base.tokenizer.mask_token_id).all()
    # The tokenizer's own first and last token are never asked.
    assert 0 not in places
    assert batch["input_ids"].shape[1] - 1 not in places


def test_about_a_seventh_is_masked_and_never_nothing() -> None:
    rows = LanguageRows(tiny_base("bert", "masked"), [" ".join(TEXT[:4])] * 200 + ["a"] * 50)
    counts = [rows.answers(at) for at in range(len(rows))]
    assert counts[-50:] == [1] * 50
    tokens = len(rows.windows[0].ids)
    # 200 windows of some 80 tokens: a standard deviation of 0.15 * sqrt(0.85 / 0.15 / 16000) = 0.003.
    assert abs(sum(counts[:200]) / (200 * tokens) - 0.15) < 0.015


def test_soft_tokens_stand_in_front_and_are_not_asked() -> None:
    base = tiny_base("llama")
    plain, soft = LanguageRows(base, MIXED), LanguageRows(base, MIXED, soft=[600, 601])
    batch = soft.collate([0])
    assert batch["input_ids"][0, :3].tolist() == [0, 600, 601]
    asked = batch["targets"][0]
    assert asked[:2].tolist() == [IGNORED, IGNORED]
    assert asked[2] == batch["input_ids"][0, 3]  # the last soft token says the first of the text
    assert [window.ids for window in plain.windows] == [window.ids for window in soft.windows]
    assert soft.sizes().tolist() == plain.sizes().tolist()


@pytest.mark.parametrize(
    ("architecture", "kind", "reason"),
    [("bert", "encoder", "says nothing of any token"), ("t5", "encoder-decoder", "fill gaps")],
)
def test_what_has_no_language_loss_says_why(architecture: str, kind: str, reason: str) -> None:
    with pytest.raises(CapabilityError, match=reason) as found:
        LanguageRows(tiny_base(architecture, kind), MIXED)
    assert found.value.fix


def test_no_room_for_a_text_is_an_error() -> None:
    base = replace(tiny_base("llama"), context=4)
    with pytest.raises(CapabilityError, match="no room for a text"):
        LanguageRows(base, MIXED, soft=[600, 601])
