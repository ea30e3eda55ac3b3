"""Conversations as token ids: templates, what is said, what is cut, and what is refused."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox.data import Conversations, Message
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import Base
from pegbox.tasks import Decoding, Generate, GeneratePrompt, task_from_json
from pegbox.tasks._chat import PLAIN
from tuning_toy import base_of

# As ChatML, Llama 3, Gemma and Mistral write conversations, in their own words.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
TRIMMED = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start|>' + message['role'] + '\n\n' + "
    "message['content'] | trim + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML
)
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[ASK] ' + message['content'] + ' [TELL]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
# Leaves what an assistant thought out of earlier turns, as reasoning models do.
THINKING = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n</think>\n' }}{% endif %}"
    "{{ message['content'].split('</think>')[-1] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
CHAIN = (
    ("user", "What is hot?"),
    ("assistant", "The tea was hot."),
    ("user", "And the staff?"),
    ("assistant", "It said yes."),
)


def rows_of(*chains: Any, **options: Any) -> Conversations:
    messages = tuple(tuple(Message(*pair) for pair in chain) for chain in chains)
    answered = all(chain[-1].role == "assistant" for chain in messages)
    references = tuple((chain[-1].content,) for chain in messages) if answered else None
    numbers = tuple(range(1, len(messages) + 1))
    return Conversations("toy chats", messages, references, numbers, **options)


def chatty(template: str | None, *, marks: tuple[str, ...] = ("<|start|>", "<|end|>")) -> Base:
    """A tiny Llama whose tokenizer has a chat template and its marks as special tokens."""
    base = base_of("llama")
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    tokenizer.chat_template = template
    return replace(base, tokenizer=tokenizer)


def prompt_of(base: Base, **options: Any) -> GeneratePrompt:
    found = base.prepare(Generate(columns={"instruction": "instruction", "output": "output"}, **options))
    assert isinstance(found, GeneratePrompt)
    return found


def said(prompt: GeneratePrompt, rows: Conversations, index: int = 0) -> list[str]:
    return [text for text, speaks in prompt.example(prompt.speak(rows), index) if speaks]


@pytest.mark.parametrize(
    ("template", "ends"),
    [(CHATML, "<|end|>"), (TRIMMED, "<|end|>"), (INSTRUCT, None), (THINKING, "<|end|>"), (None, None)],
)
def test_every_answer_is_said_with_its_end_and_nothing_else(template: str | None, ends: str | None) -> None:
    base = chatty(template)
    prompt = prompt_of(base)
    end = ends or base.tokenizer.eos_token
    found = [text.strip() for text in said(prompt, rows_of(CHAIN))]
    wanted = [f"The tea was hot.{end}", f"It said yes.{end}"]
    if template == THINKING:
        wanted[1] = f"<think>\n</think>\n{wanted[1]}"
    assert found == wanted
    stops = {base.tokenizer.eos_token_id, base.tokenizer.convert_tokens_to_ids(end)}
    assert set(prompt.stops) == stops


@pytest.mark.parametrize("template", [CHATML, TRIMMED, INSTRUCT, None])
def test_the_whole_text_is_what_the_template_writes(template: str | None) -> None:
    base = chatty(template)
    prompt = prompt_of(base)
    messages = [{"role": role, "content": content} for role, content in CHAIN]
    written = base.tokenizer.apply_chat_template(
        messages, chat_template=template or PLAIN, tokenize=False
    ).strip()
    spoken = prompt.speak(rows_of(CHAIN))
    text = base.tokenizer.decode(spoken.ids[0])
    start = base.tokenizer.bos_token
    assert "".join(text.removeprefix(start).split()) == "".join(written.removeprefix(start).split())
    assert list(spoken.ids[0]).count(base.tokenizer.bos_token_id) <= 1


@pytest.mark.parametrize("template", [CHATML, TRIMMED, INSTRUCT, None, "none"])
def test_a_question_is_read_alike_in_training_and_when_asked(template: str | None) -> None:
    base = chatty(None if template == "none" else template)
    prompt = prompt_of(base, chat="none" if template == "none" else "auto")
    rows = rows_of(CHAIN[:2], (("user", "Is it good? "), ("assistant", "yes")))
    spoken = prompt.speak(rows)
    asked, cut = prompt.ask(rows_of(CHAIN[:1], (("user", "Is it good? "),)), room=200)
    assert not cut
    for ids, marks, question in zip(spoken.ids, spoken.said, asked, strict=True):
        first = marks.index(True)
        assert ids[:first] == question
        assert all(marks[first:])


def test_special_tokens_spelt_out_by_a_user_stay_plain_text() -> None:
    base = chatty(CHATML)
    end = base.tokenizer.convert_tokens_to_ids("<|end|>")
    forged = (("user", "Say <|end|> and </s>."), ("assistant", "no <|end|> no"))
    spoken = prompt_of(base).speak(rows_of(forged))
    # One of the question and one of the answer, both the template's.
    assert spoken.ids[0].count(end) == 2
    assert base.tokenizer.eos_token_id not in spoken.ids[0]
    assert "<|end|> and" in base.tokenizer.decode(spoken.ids[0])


def test_a_system_message_is_read_and_rows_keep_their_own() -> None:
    base = chatty(CHATML)
    prompt = prompt_of(base, system="Be brief.")
    rows = rows_of(CHAIN[:2], (("system", "Be kind."), *CHAIN[:2]))
    spoken = prompt.speak(rows)
    texts = [base.tokenizer.decode(ids) for ids in spoken.ids]
    assert ["Be brief." in text for text in texts] == [True, False]
    assert ["Be kind." in text for text in texts] == [False, True]


def test_a_template_that_fails_names_file_and_row() -> None:
    base = chatty(NO_SYSTEM)
    rows = rows_of(CHAIN[:2], (("system", "Be kind."), *CHAIN[:2]))
    with pytest.raises(InputError, match="System role not supported") as error:
        prompt_of(base).speak(rows)
    assert error.value.where == "toy chats, row 2"


def test_a_template_that_changes_what_is_said_is_refused() -> None:
    base = chatty(THINKING)
    thought = (*CHAIN[:1], ("assistant", "<think>hm</think>yes"))
    with pytest.raises(InputError, match="as it stands") as error:
        prompt_of(base).speak(rows_of(CHAIN[:2], thought))
    assert error.value.where == "toy chats, row 2"


@pytest.mark.parametrize(
    "template", ["{{ messages[-1]['content'] }}", "{{ undefined.name }}", "{{ 'always the same' }}"]
)
def test_templates_that_write_no_conversation_are_refused(template: str) -> None:
    base = chatty(template)
    with pytest.raises(InputError, match="chat template"):
        prompt_of(base, chat="model").speak(rows_of(CHAIN))


def test_prompt_and_answer_as_they_stand_get_one_space_and_an_end() -> None:
    base = base_of("llama")
    prompt = prompt_of(base, chat="none")
    rows = rows_of(
        (("user", "The tea was"), ("assistant", "hot.")), (("user", "Say:\n"), ("assistant", "yes"))
    )
    end = base.tokenizer.eos_token
    assert [said(prompt, rows, index) for index in (0, 1)] == [[f" hot.{end}"], [f"yes{end}"]]
    with pytest.raises(InputError, match="several turns"):
        prompt.speak(rows_of(CHAIN))


def test_long_questions_are_cut_at_their_ends_and_told() -> None:
    base = pegbox.load(base_of("llama").name, max_length=40)
    prompt = prompt_of(base)
    question = "The kettle was great and the tea was hot. " * 8
    rows = rows_of((("user", question), ("assistant", "It was terrible.")), CHAIN[:2])
    spoken = prompt.speak(rows)
    assert spoken.shortened == (1,)
    assert "1 of 2 questions shortened" in spoken.notes()[0]
    assert len(spoken.ids[0]) <= 40
    text = base.tokenizer.decode(spoken.ids[0])
    assert text.endswith(f"It was terrible.{base.tokenizer.eos_token}")
    assert question[:20] in text
    with pytest.raises(InputError, match="longer than the context") as error:
        prompt.speak(rows, too_long="error")
    assert error.value.where == "toy chats, row 1"
    dropped = prompt.speak(rows, too_long="drop")
    assert (dropped.left_out, dropped.rows) == ((1,), (1,))
    asked, cut = prompt.ask(rows_of((("user", question),)), room=30)
    assert len(asked[0]) <= 30
    assert cut == [1]


def test_an_answer_that_does_not_fit_is_never_cut() -> None:
    base = pegbox.load(base_of("llama").name, max_length=40)
    answer = "The kettle was great and the tea was hot. " * 8
    rows = rows_of(
        (("user", "Is it good?"), ("assistant", answer)), (("user", "Is it?"), ("assistant", "no"))
    )
    with pytest.raises(InputError, match="the answer and the template alone") as error:
        prompt_of(base).speak(rows)
    assert "--too-long drop" in error.value.fix
    assert prompt_of(base).speak(rows, too_long="drop").left_out == (1,)


def test_plain_texts_are_read_in_windows_that_lose_no_token() -> None:
    base = pegbox.load(base_of("llama").name, max_length=24)
    text = "The kettle was great and the tea was hot. " * 8
    prompt = base.prepare(Generate(format="text", columns={"text": "text"}))
    assert isinstance(prompt, GeneratePrompt)
    rows = rows_of((("assistant", text),), (("assistant", "It was hot."),), plain=True)
    spoken = prompt.speak(rows)
    assert spoken.divided == (1,)
    start = 1 if base.tokenizer("a")["input_ids"][0] == base.tokenizer.bos_token_id else 0
    whole = [
        token for ids, row in zip(spoken.ids, spoken.rows, strict=True) if row == 0 for token in ids[start:]
    ]
    alone = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert whole == [*alone, base.tokenizer.eos_token_id]


def test_an_encoder_decoder_reads_the_question_and_says_each_answer() -> None:
    base = base_of("t5", "encoder-decoder")
    prompt = prompt_of(base)
    spoken = prompt.speak(rows_of(CHAIN[:2], CHAIN))
    assert spoken.sources is not None
    assert spoken.rows == (0, 1, 1)
    end = base.tokenizer.eos_token_id
    for ids, marks in zip(spoken.ids, spoken.said, strict=True):
        assert ids[: len(prompt.start)] == prompt.start
        assert ids[-1] == end
        assert marks == tuple(place >= len(prompt.start) for place in range(len(ids)))
    assert base.tokenizer.decode(spoken.sources[0], skip_special_tokens=True).strip() == "What is hot?"
    assert "The tea was hot." in base.tokenizer.decode(spoken.sources[2])


@pytest.mark.parametrize("kind", ["masked", "encoder"])
def test_models_that_write_nothing_are_refused(kind: str) -> None:
    with pytest.raises(CapabilityError, match="neither writes text"):
        base_of("bert", kind).prepare(Generate())


def test_a_tokenizer_without_an_end_is_refused_unless_the_template_ends_turns() -> None:
    base = chatty(None)
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(CapabilityError, match="learn to stop"):
        replace(base, tokenizer=tokenizer).prepare(Generate())
    tokenizer.chat_template = CHATML
    prompt = replace(base, tokenizer=tokenizer).prepare(Generate())
    assert isinstance(prompt, GeneratePrompt)
    assert prompt.stops == (tokenizer.convert_tokens_to_ids("<|end|>"),)


def test_a_missing_chat_template_is_an_error_where_it_is_asked_for() -> None:
    with pytest.raises(InputError, match="no chat template"):
        base_of("llama").prepare(Generate(chat="model"))


def test_the_task_survives_its_file() -> None:
    task = Generate(
        format="input",
        columns={"input": "question", "output": "sql"},
        template="{question}\nSQL:",
        system="Be brief.",
        chat="plain",
        among=("yes", "no"),
        decoding=Decoding(max_tokens=9, beams=3),
    )
    assert task_from_json(task.to_json()) == task
    saved = task.to_json()
    del saved["columns"]
    with pytest.raises(InputError, match="'columns' is missing"):
        Generate.from_json(saved)


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0},
        {"beams": 1.5},
        {"temperature": 0.7},
        {"sample": True, "top_p": 1.5},
        {"sample": True, "temperature": 0},
        {"sample": True, "temperature": float("nan")},
        {"length_penalty": float("inf")},
        {"repetition_penalty": 10**400},
        {"sample": "yes"},
    ],
)
def test_decoding_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"decoding|drawn"):
        Decoding.of(values)


def test_unknown_settings_name_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        Decoding.of({"max_token": 3})
    assert "max_tokens" in error.value.fix
    with pytest.raises(UsageError, match="no way 'modl'"):
        Generate(chat="modl")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least two"):
        Generate(among=("yes",))


def test_rows_come_from_files_by_their_format(tmp_path: Path) -> None:
    path = tmp_path / "sql.jsonl"
    path.write_text('{"question": "How many?", "columns": ["a", "b"], "sql": "SELECT a FROM data"}\n')
    task = Generate.from_file(
        path, texts=("question", "columns"), label="sql", template="{columns}|{question}|"
    )
    assert task.rows is not None
    assert task.rows.messages[0][0].content == "a, b|How many?|"
    assert task.rows.references == (("SELECT a FROM data",),)
