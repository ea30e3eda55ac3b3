"""Preferences as token ids: those that a policy reads and writes, what is cut, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

import pegbox
from pegbox.data import Conversations, Message, Preferences, from_answers
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import Base
from pegbox.tasks import Generate, Prefer, PreferPrompt, Soft, guess_task, task_from_json
from pegbox.tasks._chat import PLAIN
from reward_toy import preferences_of, toy_pairs
from test_tasks_generate import CHATML, chatty
from tuning_toy import base_of, folder_of

CHAIN = (Message("user", "What is hot?"), Message("assistant", "The tea."), Message("user", "And the staff?"))
ROWS = replace(
    preferences_of(("What is hot?", "The tea was hot.", "no"), ("", "It said yes.", "maybe the hotel")),
    prompts=((Message("system", "Be kind."), Message("user", "What is hot?")), CHAIN),
)


def prompt_of(base: Base, **options: Any) -> PreferPrompt:
    found = base.prepare(Prefer(**options))
    assert isinstance(found, PreferPrompt)
    return found


def spoken_ids(base: Base, rows: Preferences, answers: tuple[str, ...], **options: Any) -> list[Any]:
    """What a policy of the same base and chat is trained on for these answers."""
    messages = tuple((*p, Message("assistant", a)) for p, a in zip(rows.prompts, answers, strict=True))
    chats = Conversations("toy", messages, tuple((answer,) for answer in answers), rows.numbers)
    prompt: Any = base.prepare(Generate(format="messages", columns={"messages": "messages"}, **options))
    return list(prompt.speak(chats).ids)


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("trunk", [False, True])
def test_ids_are_those_that_a_policy_reads_and_writes(template: str | None, trunk: bool) -> None:
    base = chatty(template)
    options = {"system": "Be brief."}
    prompt = prompt_of(base.headed() if trunk else base, **options)
    found = prompt.encode_pairs(ROWS)
    assert found.ids(0) == spoken_ids(base, ROWS, ROWS.chosen, **options)
    assert found.ids(1) == spoken_ids(base, ROWS, ROWS.rejected, **options)
    end = base.tokenizer.convert_tokens_to_ids("<|end|>") if template else base.tokenizer.eos_token_id
    assert {ids[-1] for ids in found.encoded.ids} == {end}
    assert prompt.task.chat_template == (template or PLAIN)
    assert not found.notes()
    alone = from_answers([(list(p), a) for p, a in zip(ROWS.prompts, ROWS.rejected, strict=True)])
    assert isinstance(alone, Conversations)
    assert prompt.encode_answers(alone).ids() == found.ids(1)


def test_prompt_and_answer_can_stand_as_they_are() -> None:
    base = base_of("llama")
    rows = preferences_of(("What is hot?", "The tea.", "no"))
    prompt = prompt_of(base, chat="none")
    assert prompt.task.chat_template is None
    assert base.tokenizer.decode(prompt.encode_pairs(rows).ids()[0]).endswith("What is hot? The tea.</s>")
    assert prompt_of(base, format="text").task.chat_template is None


def test_the_ids_of_a_question_are_the_start_of_both() -> None:
    base = base_of("llama")
    prompt = prompt_of(base)
    assert prompt.spoken is not None
    asked = Conversations("toy", ROWS.prompts, None, ROWS.numbers)
    starts, _ = prompt.spoken.ask(asked, room=10_000)
    found = prompt.encode_pairs(ROWS)
    for start, one, other in zip(starts, found.ids(0), found.ids(1), strict=True):
        assert one[: len(start)] == start == other[: len(start)]


def test_prompts_are_cut_at_their_beginning_alike_for_both_answers() -> None:
    base = pegbox.load(folder_of("llama", "causal"), max_length=64)
    prompt = prompt_of(base)
    long = "tea " * 120 + "hot screen?"
    rows = preferences_of((long, "The hotel and the staff.", "no"), ("Is it good?", "yes", "no"))
    found = prompt.encode_pairs(rows)
    assert found.notes() == ["toy pairs: 1 of 2 prompts cut at their beginning to fit the context (row 1)"]
    chosen, rejected = (base.tokenizer.decode(found.ids(place)[0]) for place in (0, 1))
    assert len(found.ids(0)[0]) <= 64
    assert "hot screen?" in chosen
    assert chosen.count("tea") == rejected.count("tea") > 10
    assert "Instruction:" in chosen
    assert "Response: The hotel and the staff." in chosen
    assert "drop" not in str(found.notes())
    kept = prompt.encode_pairs(rows, too_long="drop")
    assert (kept.kept, kept.left_out, len(kept)) == ((1,), (1,), 1)
    with pytest.raises(InputError, match="longer than the context") as caught:
        prompt.encode_pairs(rows, too_long="error")
    assert "toy pairs, row 1" in str(caught.value)
    assert "--too-long shorten" in caught.value.fix


def test_oldest_turns_go_first_and_the_system_stays() -> None:
    base = pegbox.load(folder_of("llama", "causal"), max_length=64)
    old = (Message("user", "kettle " * 40), Message("assistant", "breakfast " * 40))
    prompt = (Message("system", "Be kind."), *old, Message("user", "Is the tea hot?"))
    rows = replace(preferences_of(("x", "yes", "no")), prompts=(prompt,))
    text = base.tokenizer.decode(prompt_of(base).encode_pairs(rows).ids()[0])
    assert "kettle" not in text
    assert "breakfast" not in text
    assert "Be kind." in text
    assert "Is the tea hot?" in text


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_answers_are_never_cut_so_that_rows_are_left_out_and_told(kind: str) -> None:
    base = pegbox.load(folder_of("llama" if kind == "causal" else "bert", kind), max_length=48)
    rows = preferences_of(("Is it good?", "tea " * 60, "no"), ("Is it good?", "yes", "no"))
    prompt = prompt_of(base.headed())
    found = prompt.encode_pairs(rows)
    assert found.kept == (1,)
    assert found.notes() == [
        "toy pairs: 1 of 2 rows left out, since they do not fit into the context, answers never being cut "
        "(row 1)"
    ]
    with pytest.raises(InputError, match="a row is longer than the context"):
        prompt.encode_pairs(rows.select([0]))


@pytest.mark.parametrize("kind", ["masked", "encoder"])
def test_an_encoder_reads_prompt_and_answer_as_a_pair(kind: str) -> None:
    base = base_of("bert", kind).headed()
    prompt = prompt_of(base)
    assert prompt.notes == ("prompt and answer are read as a pair, without a chat template",)
    found = prompt.encode_pairs(ROWS)
    first = base.tokenizer("Be kind.\n\nWhat is hot?", "The tea was hot.")
    assert list(found.ids(0)[0]) == first["input_ids"]
    turns = "User: What is hot?\n\nAssistant: The tea.\n\nUser: And the staff?"
    second = base.tokenizer(turns, "maybe the hotel")
    assert list(found.ids(1)[1]) == second["input_ids"]
    types = found.encoded.types
    assert (types and list(types[3])) == second.get("token_type_ids")
    short = pegbox.load(folder_of("bert", kind), max_length=32).headed()
    long = preferences_of(("tea " * 100 + "hot?", "The hotel.", "no"))
    cut = prompt_of(short).encode_pairs(long)
    assert max(cut.encoded.lengths) <= 32
    text = short.tokenizer.decode(cut.ids()[0])
    assert "hot?" in text.replace(" ?", "?")
    assert cut.shortened == (1,)


def test_an_encoder_decoder_is_refused_with_the_reason() -> None:
    with pytest.raises(CapabilityError, match="divides them between two") as caught:
        base_of("t5", "encoder-decoder").prepare(Prefer())
    assert "etude" in caught.value.fix


def test_the_task_survives_being_saved() -> None:
    task = Prefer(
        format="messages",
        columns={"chosen": "a", "rejected": "b"},
        dialogue="human-assistant",
        system="Be kind.",
        chat="plain",
        chat_template="x",
    )
    assert task_from_json(task.to_json()) == task
    assert task.fields == ("a", "b")
    for change, fault in (
        ({"format": 2}, "a 'prefer' task of format 2"),
        ({"chat": "x"}, "there is no way 'x'"),
        ({"task": "tags"}, "'tags' task"),
    ):
        with pytest.raises(InputError, match=fault):
            task_from_json({**task.to_json(), **change})
    broken = task.to_json()
    del broken["system"]
    with pytest.raises(InputError, match="the key 'system' is missing"):
        task_from_json(broken)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no way 'plan' to write a conversation") as caught:
        Prefer(chat="plan")  # type: ignore[arg-type]
    assert "plain" in caught.value.fix
    with pytest.raises(UsageError, match="no way 'humans' to read a dialogue"):
        Prefer(dialogue="humans")  # type: ignore[arg-type]
    several = replace(toy_pairs(2), prompts=(CHAIN, CHAIN))
    with pytest.raises(InputError, match="several turns needs a template") as wrong:
        prompt_of(base_of("llama"), chat="none").encode_pairs(several)
    assert "toy pairs, row 1" in str(wrong.value)
    for rows in (replace(toy_pairs(2), answered=False), from_answers([("Hi", "Hello")])):
        with pytest.raises(InputError, match="not known which of two answers is better"):
            Prefer().gold(rows)


def test_a_test_file_is_read_as_the_training_file_was() -> None:
    from test_data_preferences import HUMAN, table

    task = Prefer.from_table(table(prompt=[HUMAN], chosen=["A"], rejected=["B"]), dialogue="human-assistant")
    assert task.rows is not None
    assert len(task.rows.prompts[0]) == 3
    again = task.read_table(table(prompt=[HUMAN], chosen=["C"], rejected=["D"]))
    assert isinstance(again, Preferences)
    assert len(again.prompts[0]) == 3
    other = task.read_table(table(q=["Human: Hi"], a=["C"], b=["D"]), texts=("q", "a", "b"))
    assert other.prompts[0] == (Message("user", "Hi"),)  # type: ignore[operator]
    pairs = task.read_table(table(prompt=["Human: Hi"], first=["C"], second=["C"]), ranked=False)
    assert isinstance(pairs, Preferences)
    assert not pairs.answered
    single = task.read_table(table(prompt=["Human: Hi"], response=["C"]), ranked=False)
    assert isinstance(single, Conversations)
    assert single.prompts() == ((Message("user", "Hi"),),)
    named = task.read_table(table(q=["Human: Hi"], a=["C"]), texts=("q", "a"), ranked=False)
    assert named.references == (("C",),)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="No columns of two answers"):
        task.read_table(table(prompt=["Hi"], response=["C"]))


def test_length_that_tells_most_pairs_is_said() -> None:
    said: list[str] = []
    rows = preferences_of(*((f"Ask {at}?", "a long answer", "no") for at in range(20)))
    Prefer().check(rows, said.append)
    assert said == [
        "toy pairs: the longer answer is chosen in 100% of the pairs, which length alone would tell: see the "
        "length bias of the scores"
    ]


def test_preferences_are_guessed_by_their_columns() -> None:
    from test_data_preferences import table

    assert guess_task(table(prompt=["a"], chosen=["b"], rejected=["c"])) == "prefer"
    assert guess_task(table(Chosen=["a b"], Rejected=["a c"])) == "prefer"
    assert guess_task(table(text=["a", "b"], label=["c", "d"])) == "classify"


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_soft_tokens_stand_at_the_front(kind: str) -> None:
    base = base_of("llama" if kind == "causal" else "bert", kind).headed()
    plain = prompt_of(base)
    soft = replace(plain, soft=Soft(first=1000, front=2))
    wanted = [(ids[0], 1000, 1001, *ids[1:]) for ids in plain.encode_pairs(ROWS).encoded.ids]
    assert list(soft.encode_pairs(ROWS).encoded.ids) == wanted
    assert soft.without_soft() == plain
