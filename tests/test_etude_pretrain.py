import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from pegbox.errors import InputError, UsageError
from pegbox.models.etude import folder
from pegbox.models.etude.pretrain import (
    Corpus,
    Plan,
    build_model,
    build_tokenizer,
    pretrain,
)
from pegbox.models.etude.pretrain._corpus import Verdicts
from pegbox.models.etude.pretrain._tokenizer import SINGLE_WORDS

KINDS = ("causal", "masked")
TEXTS = (
    "",
    " ",
    "The hotel was spotless.",
    "naïve café — 漢字 🎻\n\ttab\x00 \u200d é",
    "a" * 300,
    "<|bos",
    "x  y\r\n",
)


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: build_tokenizer(kind, 3, rows=1500) for kind in KINDS}


def tiny(kind, steps=6, **changes):
    plan = Plan(
        kind=kind, steps=steps, seed=3, threads=1, warmup=2, size=128, hidden=64, layers=1, bf16=False,
        save_every=2, ahead=steps if kind == "causal" else 2,
    )  # fmt: skip
    return replace(plan, **changes)


def start(plan, tokenizer):
    model = build_model(plan.kind, tokenizer, plan.seed, plan.hidden, plan.layers)
    return model, Corpus(tokenizer, plan.seed, plan.steps, plan.size, plan.ahead)


def bits(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one, two):
    return all(torch.equal(weight, two[name]) for name, weight in one.items())


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_says_any_text_and_keeps_label_words_whole(kind, tokenizers):
    tokenizer = tokenizers[kind]
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
    for word in SINGLE_WORDS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
    assert len(set(tokenizer.all_special_ids)) == (3 if kind == "causal" else 4)
    assert tokenizer.unk_token is None


def test_special_tokens_stand_where_they_belong(tokenizers):
    causal, masked = tokenizers["causal"], tokenizers["masked"]
    ids = causal("It was great.").input_ids
    assert ids[0] == causal.bos_token_id
    assert ids.count(causal.bos_token_id) == 1
    pair = masked("A man sleeps.", "He rests.")
    ends = [at for at, token in enumerate(pair.input_ids) if token == masked.sep_token_id]
    assert pair.input_ids[0] == masked.cls_token_id
    assert pair.token_type_ids == [0] * (ends[0] + 1) + [1] * (ends[1] - ends[0])
    # The mask swallows the space before it, for the answers bring their own.
    assert masked("It was [MASK].").input_ids == masked("It was[MASK].").input_ids


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_words_are_found_at_line_ends_only(kind, tokenizers):
    tokenizer = tokenizers[kind]
    end = "" if kind == "masked" else "<|eos|>"
    ids = tokenizer(f"A great phone and a good case. It was great.{end}", return_tensors="np").input_ids
    found = ids[0][Verdicts(tokenizer)(ids)[0]]
    assert tokenizer.convert_ids_to_tokens(found) == ["Ġgreat"]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_depend_on_the_step_alone(kind, tokenizers):
    _, first = start(tiny(kind), tokenizers[kind])
    _, second = start(tiny(kind), tokenizers[kind])
    for step in (4, 1, 4):
        one, two = first.batch(step), second.batch(step)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_masks_hide_a_fifth_and_never_a_special_token(tokenizers):
    tokenizer = tokenizers["masked"]
    corpus = Corpus(tokenizer, 3, 40, 1024, 0)
    count = real = 0
    for step in range(40):
        batch = corpus.batch(step)
        asked = batch["weights"] > 0
        assert not torch.isin(batch["labels"][asked], torch.tensor(tokenizer.all_special_ids)).any()
        assert batch["attention_mask"][asked].all()
        count, real = count + int(asked.sum()), real + int(batch["attention_mask"].sum())
    # 20 % of ordinary tokens, 50 % of the few verdict words, none of the two or more special ones per row.
    assert 0.17 < count / real < 0.22


@pytest.mark.parametrize("kind", KINDS)
def test_steps_ahead_ask_for_the_next_token_and_see_none_of_it(kind, tokenizers):
    tokenizer = tokenizers[kind]
    model, corpus = start(tiny(kind, size=512), tokenizer)
    batch = corpus.batch(0)
    labels, weights = batch.pop("labels"), batch.pop("weights")
    asked = weights[:, :-1] > 0
    assert torch.equal(labels[:, :-1][asked], batch["input_ids"][:, 1:][asked])
    assert not (labels[weights > 0] == tokenizer.pad_token_id).any()
    before = model.base_model(**batch).last_hidden_state[:, :4]
    batch["input_ids"][:, 4:] = 9
    assert torch.equal(before, model.base_model(**batch).last_hidden_state[:, :4])


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_are_equal_and_a_resumed_one_too(kind, tokenizers, tmp_path):
    plan = tiny(kind)
    model, corpus = start(plan, tokenizers[kind])
    before = bits(model)
    loss = pretrain(plan, model, corpus, tmp_path / "whole", resume=False)
    assert not same(before, bits(model))

    again, _ = start(plan, tokenizers[kind])
    assert pretrain(plan, again, corpus, tmp_path / "again", resume=False) == loss
    assert same(bits(model), bits(again))

    class Killed(Exception):
        pass

    class Stops:
        def batch(self, step):
            if step == 5:
                raise Killed
            return corpus.batch(step)

    broken, _ = start(plan, tokenizers[kind])
    with pytest.raises(Killed):
        pretrain(plan, broken, Stops(), tmp_path / "resumed", resume=False)
    resumed, _ = start(plan, tokenizers[kind])
    assert pretrain(plan, resumed, corpus, tmp_path / "resumed", resume=True) == loss
    assert same(bits(model), bits(resumed))


def test_resume_refuses_another_plan(tokenizers, tmp_path):
    plan = tiny("causal", steps=2)
    model, corpus = start(plan, tokenizers["causal"])
    pretrain(plan, model, corpus, tmp_path, resume=False)
    with pytest.raises(
        UsageError, match=r"other settings: rate(.|\n)*expected: rate=0.001(.|\n)*another --out"
    ):
        pretrain(replace(plan, rate=0.5), model, corpus, tmp_path, resume=True)


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_etude_pretrain as t
model, corpus = t.start(t.tiny("causal", steps=40), t.build_tokenizer("causal", 3, rows=1500))
t.pretrain(t.tiny("causal", steps=40), model, corpus, Path({out!r}), resume=False)
"""


def test_kill_minus_nine_and_resume_give_the_same_bits(tokenizers, tmp_path):
    plan, killed = tiny("causal", steps=40), tmp_path / "killed"
    code = _CHILD.format(tests=os.path.dirname(__file__), out=str(killed))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list(killed.glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    assert list(killed.glob("checkpoint-*"))
    assert not (killed / "checkpoint-40").exists()
    whole, corpus = start(plan, tokenizers["causal"])
    loss = pretrain(plan, whole, corpus, tmp_path / "whole", resume=False)
    resumed, _ = start(plan, tokenizers["causal"])
    assert pretrain(plan, resumed, corpus, killed, resume=True) == loss
    assert same(bits(whole), bits(resumed))


def test_unknown_embedded_model_is_named():
    with pytest.raises(InputError, match=r"no embedded model is called 'etud'(.|\n)*did you mean 'etude'"):
        folder("etud")
