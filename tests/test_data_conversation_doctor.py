import random
from pathlib import Path
from typing import Any

import pytest

from pegbox import data
from pegbox.data._conversation_doctor import is_refusal

FOLDER = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the development data is not beside the repository"
)
COLUMNS = data.ConversationColumns("input", {"input": "input", "output": "target"}, note="as given")
CHATS = data.ConversationColumns("messages", {"messages": "messages"})
WORDS = [f"word{i}" for i in range(3000)]


def words(count: int, source: random.Random) -> str:
    return " ".join(source.choices(WORDS, k=count))


def clean(count: int = 24, seed: int = 0) -> list[tuple[str, str]]:
    source = random.Random(seed)
    return [(words(12, source), words(9, source)) for _ in range(count)]


def table(rows: list[tuple[Any, Any]], source: str = "train.jsonl") -> data.Table:
    prompts, answers = zip(*rows, strict=True)
    return data.Table(source, {"input": prompts, "target": answers}, tuple(range(1, len(rows) + 1)))


def chats(rows: list[list[tuple[str, str]]]) -> data.Table:
    cells = tuple([{"role": role, "content": content} for role, content in row] for row in rows)
    return data.Table("chats.jsonl", {"messages": cells}, tuple(range(1, len(rows) + 1)))


def kinds(findings: data.Findings) -> list[str]:
    return [item.kind for item in findings.findings]


def only(findings: data.Findings) -> data.Finding:
    (one,) = findings.findings
    return one


def test_clean_rows_have_nothing_to_report() -> None:
    findings = data.check_conversations(table(clean()), COLUMNS)
    assert findings.findings == ()
    assert findings.classes == {}
    assert findings.lines()[0] == "train.jsonl: 24 rows, as given"
    assert findings.lines()[-1] == "nothing to report"


def test_prompts_and_answers_are_measured_apart() -> None:
    rows = [("x" * count, "a " * count + "b") for count in (1, 2, 3)]
    findings = data.check_conversations(
        table(rows), COLUMNS, token_lengths=lambda texts: [10 * len(text) for text in texts]
    )
    found = {unit: (values["min"], values["max"]) for unit, values in findings.lengths.items()}
    assert found == {
        "prompt characters": (1, 3),
        "prompt words": (1, 1),
        "prompt tokens": (10, 30),
        "answer characters": (3, 7),
        "answer words": (2, 4),
        "answer tokens": (30, 70),
    }
    assert "prompt characters per row: min 1, median 2, p90 3, p95 3, p99 3, max 3" in findings.lines()


def test_bad_rows_are_errors() -> None:
    findings = data.check_conversations(table([*clean(), ("a", " "), ("", "b"), ("c", "")]), COLUMNS)
    assert [(item.kind, item.severity, item.message, item.rows) for item in findings.findings] == [
        ("bad-rows", "error", "2 rows: empty text in column 'target'", (25, 27)),
        ("bad-rows", "error", "1 row: empty text in column 'input'", (26,)),
    ]
    assert findings.rows == 27
    turned = chats([[("user", "a"), ("assistant", "b")], [("user", "a")]])
    found = only(data.check_conversations(turned, CHATS))
    assert found.message == "1 row: the conversation ends with the user, without an answer"
    assert found.rows == (2,)


def test_rows_that_repeat_others() -> None:
    rows = clean()
    again = [(rows[0][0].upper(), rows[0][1] + " "), rows[0], rows[3]]
    found = only(data.check_conversations(table([*rows, *again]), COLUMNS))
    assert (found.kind, found.severity, found.rows) == ("exact-duplicates", "warning", (1, 4, 25, 26, 27))
    assert found.message == "3 rows repeat prompt and answer of another row exactly: keep one of each"
    assert found.details == ({"rows": [1, 25, 26]}, {"rows": [4, 27]})


def test_one_prompt_with_different_answers() -> None:
    rows = clean()
    found = only(data.check_conversations(table([*rows, (rows[5][0], "other " + rows[5][1])]), COLUMNS))
    assert (found.kind, found.rows) == ("different-answers", (6, 25))
    assert found.message.startswith("1 prompt with different answers in different rows: mend the wrong ones")
    # Another system message is another prompt, and no duplicate.
    (prompt, answer), (_, other) = clean(2)
    rows_of_systems = [
        [("system", name), ("user", prompt), ("assistant", said)]
        for name, said in (("You are a pirate.", answer), ("You are a judge.", other))
    ]
    assert data.check_conversations(chats(rows_of_systems), CHATS).findings == ()


def test_nearly_equal_prompts() -> None:
    rows = clean()
    near = [(rows[2][0] + "!", words(9, random.Random(7))), (rows[2][0] + " s", words(9, random.Random(8)))]
    found = only(data.check_conversations(table([*rows, *near]), COLUMNS))
    assert (found.kind, found.message) == ("near-duplicates", "1 group of near-duplicate prompts")
    assert found.rows == (3, 25, 26)


def test_a_long_system_message_makes_no_prompts_alike() -> None:
    system = words(300, random.Random(9))
    rows = [[("system", system), ("user", prompt), ("assistant", answer)] for prompt, answer in clean()]
    findings = data.check_conversations(chats(rows), CHATS)
    assert findings.findings == ()
    assert findings.lengths["prompt words"]["min"] == 312


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot fulfill this request.",
        "I am very sorry, I am not able to say.",
        "Sorry, I won't do that.",
        "I apologize, but I cannot say.",
        "Unfortunately, I'm unable to see it.",
        "I'm sorry, but as an AI I do not know.",
        "As an AI language model, I have no opinions.",
        "Good question! But as a large language model I have no eyes.",
        "I'm an AI and have no house.",
        "I cannot assist with that request.",
        "I can't help you with this.",
        "I'm not able to provide that.",
        "  I’m unable to\ngenerate such text.",
    ],
)
def test_refusals_are_known(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that. Rest well.",
        "Sorry, what do you mean?",
        "She said: I can't help you.",
        "I cannot recommend this film enough.",
        "An AI is a program.",
        "He works as an aide in town.",
        "Unfortunately, it rained.",
        "x" * 200 + " as an AI language model",
    ],
)
def test_other_answers_are_no_refusals(answer: str) -> None:
    assert not is_refusal(answer)


def test_refusals_are_counted() -> None:
    rows = clean()
    rows[3] = (rows[3][0], "I'm sorry,\nbut I can't say more about this.")
    rows[7] = (rows[7][0], "As an AI language model, I know no such thing, sorry for that.")
    found = only(data.check_conversations(table(rows), COLUMNS))
    assert (found.kind, found.severity, found.rows) == ("refusals", "warning", (4, 8))
    assert found.message == (
        "2 answers (8.3%) refuse or speak of being an AI, such as \"I'm sorry, but I can't say more about "
        'this.": leave them out, unless the model shall say so'
    )


def test_answers_that_repeat_the_prompt() -> None:
    rows = clean()
    rows[1] = (rows[1][0], rows[1][0].upper() + ".")
    rows[2] = (rows[2][0], rows[2][0] + "\n" + rows[2][1])
    rows[4] = ("Once", "Once " + rows[4][1])
    findings = data.check_conversations(table(rows), COLUMNS)
    found = {item.kind: item for item in findings.findings if "prompts" not in item.kind}
    assert list(found) == ["echoes", "prompt-in-answer"]
    assert found["echoes"].rows == (2,)
    assert found["echoes"].message == (
        "1 answer merely repeats the prompt: write an answer, or leave them out"
    )
    assert found["prompt-in-answer"].rows == (3,)
    assert found["prompt-in-answer"].message.startswith("1 answer begins with the whole prompt: leave the")


@pytest.mark.parametrize(
    "mark",
    ["<|im_end|>", "<|eot_id|>", "[INST]", "[/INST]", "<<SYS>>", "<end_of_turn>", "###eos_token###", "</s>"],
)
def test_marks_of_chat_templates(mark: str) -> None:
    rows = clean()
    rows[6] = (rows[6][0], rows[6][1] + mark)
    found = only(data.check_conversations(table(rows), COLUMNS))
    assert (found.kind, found.severity, found.rows) == ("template-marks", "warning", (7,))
    assert found.message == (
        f"1 row with marks of a chat template in the text ('{mark}'): take them out, the model's own are "
        "added"
    )


def test_struck_out_text_and_comparisons_are_no_marks() -> None:
    rows = clean()
    rows[6] = (rows[6][0], "a <s>b</s> was struck out, c | d <e> [x] x|>y")
    rows[7] = (rows[7][0], "an [inst] and a [ref] in brackets, <b>bold</b>")
    assert data.check_conversations(table(rows), COLUMNS).findings == ()


def test_length_outliers() -> None:
    # All lengths the same: the deviation is 0, and the factor of 4 alone decides.
    rows = [(f"{i:010d}" * 4, f"{i:05d}" * 4) for i in range(20)]
    shuffled = random.Random(1)
    rows = [tuple("".join(shuffled.sample(part, len(part))) for part in row) for row in rows]  # type: ignore[misc]
    assert len({len(answer) for _, answer in rows}) == 1

    def found(prompt: int, answer: int) -> list[tuple[str, str, tuple[int, ...]]]:
        findings = data.check_conversations(table([*rows, ("q" * prompt, "z" * answer)]), COLUMNS)
        return [(item.kind, item.message, item.rows) for item in findings.findings if item.severity == "info"]

    assert found(160, 80) == []
    assert found(10, 5) == []
    tail = "; look at them"
    long_prompt = f"1 prompt is much longer than the rest: over 160 characters, median 40{tail}"
    short_answer = f"1 answer is much shorter than the rest: under 5 characters, median 20{tail}"
    assert found(161, 4) == [("long-prompts", long_prompt, (21,)), ("short-answers", short_answer, (21,))]
    assert [kind for kind, _, _ in found(9, 81)] == ["short-prompts", "long-answers"]
    few = data.check_conversations(table([*rows[:18], ("q" * 999, "z" * 999)]), COLUMNS)
    assert "long-prompts" not in kinds(few)


def test_wide_lengths_have_wide_bounds() -> None:
    # log2 of the lengths is 0 ... 8 in equal shares: median 4, median deviation 2, so 4 + 3.5 * 1.4826 * 2
    # = 14.4 is the highest usual one, and 2^8 = 16 times the median no outlier.
    source = random.Random(2)
    rows = [(words(12, source), "".join(source.choices("abcdefgh", k=2**power))) for power in range(9)] * 3
    rows = [(words(12, source), answer) for _, answer in rows]
    assert kinds(data.check_conversations(table(rows), COLUMNS)) == []
    far = [*rows, (words(12, source), "x" * 2**15)]
    assert kinds(data.check_conversations(table(far), COLUMNS)) == ["long-answers"]


def test_a_mixture_of_turns() -> None:
    source = random.Random(3)
    roles = ("user", "assistant") * 3
    rows = [[(role, words(9, source)) for role in roles[:count]] for count in (2, 2, 6, 4)]
    found = only(data.check_conversations(chats(rows), CHATS))
    assert (found.kind, found.severity, found.rows) == ("turns", "info", (3, 4))
    assert found.message == "2 rows have several turns (up to 3), 2 one"
    assert data.check_conversations(chats(rows[2:]), CHATS).findings == ()
    assert data.check_conversations(chats(rows[:2]), CHATS).findings == ()


def test_leakage() -> None:
    rows, other = clean(), clean(6, seed=1)
    valid = table([*other, (rows[4][0].title(), "other answer")], "valid.jsonl")
    test = table([(rows[9][0] + "?!", "another"), other[2]], "test.jsonl")
    findings = data.check_conversations(table(rows), COLUMNS, others={"valid": valid, "test": test})
    assert findings.splits == {"valid": 7, "test": 2}
    assert [(item.kind, item.message, item.rows) for item in findings.findings] == [
        ("exact-leak", "1 row with the same prompt in 'valid', row 7 there", (5,)),
        ("exact-leak", "1 row of 'valid' (row 3) with the same prompt in 'test', row 2 there", ()),
        ("near-leak", "1 row with nearly the same prompt in 'test', row 1 there", (10,)),
    ]
    assert findings.findings[0].details == (
        {"split": "", "rows": [5], "other_split": "valid", "other_rows": [7]},
    )


def test_another_split_may_lack_system_messages_and_name_its_answers_otherwise() -> None:
    (prompt, answer), *_ = rows = clean()
    prompts, answers = zip(*rows, strict=True)
    numbers = tuple(range(1, len(rows) + 1))
    train = data.Table(
        "t", {"instruction": prompts, "output": answers, "system": ("S",) * len(rows)}, numbers
    )
    valid = data.Table("v", {"instruction": (prompt,), "response": (answer,)}, (1,))
    columns = data.find_conversation_columns(train)
    found = only(data.check_conversations(train, columns, others={"valid": valid}))
    assert (found.kind, found.rows) == ("exact-leak", (1,))


def test_plain_texts() -> None:
    texts = [prompt for prompt, _ in clean()]
    texts += [
        texts[0],
        texts[1] + "!",
        "I'm sorry, but I can't say what this long text is about, not at all.",
    ]
    columns = data.ConversationColumns("text", {"text": "text"})
    numbers = tuple(range(1, len(texts) + 1))
    findings = data.check_conversations(data.Table("t.csv", {"text": tuple(texts)}, numbers), columns)
    assert [(item.kind, item.message, item.rows) for item in findings.findings] == [
        ("exact-duplicates", "1 row repeats the text of another row exactly: keep one of each", (1, 25)),
        ("near-duplicates", "1 group of near-duplicate texts", (2, 26)),
    ]
    assert set(findings.lengths) == {"answer characters", "answer words"}


@needs_data
def test_public_sets() -> None:
    files = {
        name: {part: data.read(FOLDER / name / f"{part}.jsonl") for part in ("train", "valid", "test")}
        for name in ("instruct_mix", "e2e_nlg")
    }
    found = {}
    for name, parts in files.items():
        train = parts.pop("train")
        columns = data.find_conversation_columns(train)
        findings = data.check_conversations(train, columns, others=parts)
        assert findings.errors == ()
        found[name] = {item.kind: item for item in findings.findings}
    # By their READMEs no prompt is in two splits, and each reference of a training record is a row.
    assert "exact-leak" not in found["e2e_nlg"]
    assert "exact-leak" not in found["instruct_mix"]
    assert "different-answers" in found["e2e_nlg"]
    assert "different-answers" not in found["instruct_mix"]
    marked = found["instruct_mix"]["template-marks"]
    source = data.read(FOLDER / "instruct_mix" / "train.jsonl")
    cells = zip(source.numbers, source.columns["output"], strict=True)
    assert marked.rows == tuple(number for number, cell in cells if "###eos_token###" in str(cell))
    assert "'###eos_token###'" in marked.message
    assert found["instruct_mix"]["refusals"].rows
