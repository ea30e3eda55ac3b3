import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from pegbox.models.etude import NAMES, folder, world
from pegbox.models.etude.pretrain._score import Question, accuracy, answer_logits, ask
from pegbox.models.etude.pretrain._tokenizer import SINGLE_WORDS

LIMIT = 10_000_000


@pytest.fixture(scope="module")
def loaded():
    classes = {"etude": AutoModelForCausalLM, "etude-masked": AutoModelForMaskedLM}
    return {
        name: (classes[name].from_pretrained(folder(name), dtype=torch.float32).eval(),
               AutoTokenizer.from_pretrained(folder(name)))
        for name in NAMES
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_shipped_folder_is_small_and_whole(name, loaded):
    files = list(folder(name).iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= {
        path.name for path in files
    }
    assert sum(path.stat().st_size for path in files) <= LIMIT
    model, tokenizer = loaded[name]
    assert model.config.dtype == torch.float32 or model.dtype == torch.float32
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    assert inputs.weight.data_ptr() == outputs.weight.data_ptr()
    assert len(tokenizer) == inputs.num_embeddings == 4096
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512


@pytest.mark.parametrize("name", NAMES)
def test_shipped_tokenizer_round_trips(name, loaded):
    tokenizer = loaded[name][1]
    for text in ("", "Bedbugs!", "naïve — 漢字 🎻\n\t\x00", "a" * 400):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    for word in SINGLE_WORDS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "domain",
    [
        domain if domain == "hotels" else pytest.param(domain, marks=pytest.mark.slow)
        for domain in world.HELD_BACK["reviews"]
    ],
)
def test_zero_shot_on_held_back_reviews_leaves_room_on_both_sides(name, domain, loaded):
    model, tokenizer = loaded[name]
    measured, best, _ = accuracy(NAMES[name], model, tokenizer, ask("reviews", domain, 600, 1))
    assert 0.60 <= measured <= 0.85
    assert best > 0.90


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_change_the_answers(name, loaded):
    model, tokenizer = loaded[name]
    questions = ask("reviews", "hotels", 8, 2)
    together = answer_logits(NAMES[name], model, tokenizer, questions)
    alone = torch.cat([answer_logits(NAMES[name], model, tokenizer, [question]) for question in questions])
    # Sums run in another order with padding; fp32 keeps five digits of logits of size ten.
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_answers_of_several_tokens_are_refused(loaded):
    model, tokenizer = loaded["etude"]
    with pytest.raises(ValueError, match="single tokens"):
        answer_logits(
            "causal", model, tokenizer, [Question("It was", ".", (" great", " xylophonic"), 0, 1.0)]
        )


def test_the_causal_model_writes_its_world(loaded):
    model, tokenizer = loaded["etude"]
    prompt = tokenizer("Message: My lamp arrived broken.\nReply:", return_tensors="pt")
    told = model.generate(**prompt, max_new_tokens=60, do_sample=False)[0]
    assert told[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(told[prompt.input_ids.shape[1] :], skip_special_tokens=True)
    assert re.fullmatch(r" [A-Z][\w ,.'?!:-]+(\nTone: (polite|rude))?", text)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_states_what_was_measured(name):
    card = (folder(name) / "README.md").read_text(encoding="utf-8")
    for genre in world.GENRES:
        assert re.search(rf"\| {genre} \| \d\.\d{{3}} \| \d\.\d{{3}} \|", card)
    for side in ("reviews / hotels (held back)", "pairs / harbour (held back)", "news / pretraining domains"):
        assert f"| {side} | 0." in card
    assert "python -m pegbox.models.etude.pretrain" in card
