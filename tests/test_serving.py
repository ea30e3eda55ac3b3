"""Tuned models behind HTTP: the answers of the API, wrong requests, and a server that is stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pegbox
from cli_toy import heed_interrupts, run, write_rows
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.serving import Service, _app, check_installed, listen
from pegbox.tuning import (
    Choice,
    Entity,
    Prediction,
    Preferred,
    Rewarded,
    Tagged,
    Tuned,
    Written,
    answer_json,
)
from tuning_toy import base_of, hush

TEXTS = ["The kettle was great.", "The tea was terrible.", "It broke and was cold."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("served")
    task = pegbox.Classify.from_file(write_rows(place / "rows.csv"))
    base = pegbox.load("etude")
    methods = ("zero-shot", pegbox.ClosedForm(penalty=1.0))
    return [pegbox.fit(base, task, one, say=hush).save(place / f"m{at}") for at, one in enumerate(methods)]


@pytest.fixture(scope="module")
def service(folders: list[Path]) -> Service:
    return Service.load(folders, say=hush)


@contextmanager
def started(folders: list[Path]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own that serves both models, and where."""
    call = [sys.executable, "-m", "pegbox", "serve", ",".join(map(str, folders)), "--port", "0"]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving"))
        found = re.fullmatch(r"serving m0, m1 at (http://127\.0\.0\.1:\d+); Ctrl-C ends it\n", line)
        assert found, line
        try:
            yield process, found[1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(folders: list[Path]) -> Iterator[str]:
    """Where both models are served until Ctrl-C."""
    with started(folders) as (process, url):
        yield url
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert (process.wait(60), rest) == (130, "interrupted\n")


def ask(url: str, content: object = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of a reply."""
    data = raw if raw is not None else None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_models_of_one_base_share_its_weights(service: Service) -> None:
    first, second = service.models.values()
    assert first.base.model is second.base.model


def test_answers_are_those_of_predict(service: Service) -> None:
    wanted = [answer_json(one) for one in service.models["m1"].predict(TEXTS)]
    assert service.answer(TEXTS, model="m1") == {"model": "m1", "answers": wanted, "notes": []}
    objects = [{"text": text, "label": "unknown", "other": 3} for text in TEXTS]
    assert service.answer(objects, model="m1")["answers"] == wanted
    assert wanted != [answer_json(one) for one in service.models["m0"].predict(TEXTS)]


def test_what_is_unsure_is_marked(service: Service) -> None:
    answers = service.answer(TEXTS, model="m1", abstain_above=0.3)["answers"]
    assert [one["abstained"] for one in answers] == [one["probability"] < 0.7 for one in answers]
    assert not any(one["abstained"] for one in service.answer(TEXTS, model="m1", abstain_above=1)["answers"])


def test_what_was_shortened_is_told_each_time(service: Service) -> None:
    long = ["good " * 3000]
    notes = service.answer(long, model="m0")["notes"]
    assert len(notes) == 1
    assert "shortened to fit the context (row 1)" in notes[0]
    assert service.answer(long, model="m0")["notes"] == notes


def test_one_model_needs_no_name(service: Service) -> None:
    alone = Service({"only": service.models["m0"]}, max_rows=2)
    assert alone.answer(TEXTS[:2])["model"] == "only"
    with pytest.raises(InputError, match="3 rows are too many at once"):
        alone.answer(TEXTS)


def test_folders_that_cannot_be_served(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several folders are called m0"):
        Service.load([folders[0], folders[0]], say=hush)
    with pytest.raises(UsageError, match="no model to serve"):
        Service.load([], say=hush)
    with pytest.raises(InputError):
        Service.load([tmp_path / "nothing"], say=hush)
    with pytest.raises(UsageError, match="max_rows"):
        Service.load(folders, max_rows=0, say=hush)


@pytest.mark.parametrize("turned", [False, True])
def test_each_model_keeps_what_it_was_tuned_with(tmp_path: Path, turned: bool) -> None:
    task = pegbox.Classify.from_file(write_rows(tmp_path / "rows.csv"))
    base, solve, few = pegbox.load("etude"), pegbox.ClosedForm(penalty=1.0), pegbox.Training(max_steps=2)
    headed = replace(task, readout="head")
    fits = {
        "long": pegbox.fit(base, task, solve, say=hush),
        "short": pegbox.fit(pegbox.load("etude", max_length=24), task, solve, say=hush),
        "headed": pegbox.fit(base, headed, "head", training=few, say=hush),
    }
    names = sorted(fits, reverse=turned)
    service = Service.load([fits[name].save(tmp_path / name) for name in names], say=hush)
    assert service.models["short"].base.context == 24
    weights = {next(one.base.model.parameters()).data_ptr() for one in service.models.values()}
    assert len(weights) == 1
    text = ["The kettle was great and the tea was hot. " * 4]
    for name in names:
        alone = Tuned.load(tmp_path / name, say=hush)
        assert service.answer(text, model=name)["answers"] == [answer_json(alone.predict(text)[0])], name


def test_the_place_of_one_base_is_not_that_of_two(folders: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(folders[0], tmp_path / "other")
    told = json.loads((other / "pegbox.json").read_text())
    told["base"] |= {"name": "elsewhere", "fingerprint": "0" * 64}
    (other / "pegbox.json").write_text(json.dumps(told))
    with pytest.raises(UsageError, match="these models go on several"):
        Service.load([folders[1], other], model="etude", say=hush)
    assert set(Service.load(folders, model="etude", say=hush).models) == {"m0", "m1"}


def test_rows_from_python_are_checked(service: Service) -> None:
    for rows in ("abc", {"text": "a"}, None):
        with pytest.raises(InputError, match="the rows are no list"):
            service.answer(rows, model="m0")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no model to serve"):
        Service({})


def test_what_serves_is_told(server: str) -> None:
    assert ask(f"{server}/health") == (200, {"status": "ok"})
    status, models = ask(f"{server}/models")
    assert status == 200
    assert [one["name"] for one in models] == ["m0", "m1"]
    assert models[1]["method"] == "closed-form"
    assert models[1]["labels"] == ["negative", "positive"]
    assert set(ask(f"{server}/openapi.json")[1]["paths"]) == {"/health", "/models", "/predict"}


def test_requests_at_the_same_time_get_their_own_answers(server: str, service: Service) -> None:
    texts = [f"{text} {number}" for number in range(6) for text in TEXTS]
    asked = [{"model": f"m{at % 2}", "rows": [text]} for at, text in enumerate(texts)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda one: ask(f"{server}/predict", one), asked))
    for one, (status, reply) in zip(asked, found, strict=True):
        assert status == 200
        assert reply == service.answer(one["rows"], model=one["model"])  # type: ignore[arg-type]


def test_while_requests_wait_health_is_told_and_ctrl_c_ends_it(folders: list[Path]) -> None:
    """More wait than there are threads: only the one being answered is finished, the others are refused."""
    text = "The kettle was great and the tea was hot. " * 30
    asked = {"model": "m0", "rows": [f"{number} {text}" for number in range(64)]}
    with started(folders) as (process, url), ThreadPoolExecutor(45) as pool:
        waiting = [pool.submit(ask, f"{url}/predict", asked) for _ in range(45)]
        next(iter(as_completed(waiting)))
        assert ask(f"{url}/health") == (200, {"status": "ok"})
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        replies = [one.result() for one in waiting]
    refused = [reply for status, reply in replies if status == 503]
    assert refused
    assert {reply["error"]["what"] for reply in refused} == {"the server is being stopped"}
    assert sum(status == 200 for status, _ in replies) == len(replies) - len(refused)


WRONG: dict[str, tuple[Any, str]] = {
    "no model": ({"rows": TEXTS}, "the request names no model"),
    "unknown model": ({"rows": TEXTS, "model": "m2"}, "there is no model 'm2'"),
    "no row": ({"rows": [], "model": "m0"}, "there is no row"),
    "too many": ({"rows": ["a"] * 257, "model": "m0"}, "257 rows are too many at once"),
    "mixed": ({"rows": ["a", {"text": "b"}], "model": "m0"}, "some rows are objects"),
    "a number": ({"rows": ["a", 3], "model": "m0"}, "Not text but int"),
    "null": ({"rows": [None], "model": "m0"}, ""),
    "empty": ({"rows": [{"text": "a"}, {"text": ""}], "model": "m0"}, "mpty text"),
    "another column": ({"rows": [{"txt": "a"}], "model": "m0"}, "There is no column 'text'"),
    "no column": ({"rows": [{}], "model": "m0"}, ""),
    "share": ({"rows": TEXTS, "model": "m0", "abstain_above": 3}, "this is no share"),
    "key": ({"rows": TEXTS, "model": "m0", "abstain": 1}, "the request cannot be read"),
    "no rows": ({"model": "m0"}, "the request cannot be read"),
    "text alone": ({"rows": "a", "model": "m0"}, "the request cannot be read"),
    "a list": (TEXTS, "the request cannot be read"),
    "true": ({"rows": TEXTS, "model": "m0", "abstain_above": True}, "the request cannot be read"),
    "half a character": ({"rows": ["\ud800"], "model": "m0"}, "Not valid unicode text"),
    "half a character in a name": ({"rows": TEXTS, "model": "\ud800"}, "there is no model"),
    "half a character in a column": ({"rows": [{"\ud800": "a"}], "model": "m0"}, "There is no column 'text'"),
    "a pair": ({"rows": [["a", "b"]], "model": "m0"}, ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(server: str, case: str) -> None:
    content, wanted = WRONG[case]
    status, reply = ask(f"{server}/predict", content)
    assert status == 422
    error = reply["error"]
    assert wanted in error["what"]
    assert error["expected"]
    assert "--" not in error.get("fix", "")
    assert ask(f"{server}/predict", {"model": "m0", "rows": TEXTS[:1]})[0] == 200


def test_what_is_no_json_and_what_is_not_there(server: str) -> None:
    for body in (b"nope", b'{"rows": ["a"', b'{"rows": [' + b"9" * 5000 + b"]}", b'{"rows": ["\xff"]}', b""):
        status, reply = ask(f"{server}/predict", raw=body)
        assert status == 422
        assert "cannot be read" in reply["error"]["what"]
        assert "Content-Type" in reply["error"]["fix"]
    assert ask(f"{server}/predict/", {"model": "m0", "rows": TEXTS})[0] == 404
    with urllib.request.urlopen(
        urllib.request.Request(f"{server}/health", method="HEAD"), timeout=60
    ) as head:
        assert head.status == 200
    status, reply = ask(f"{server}/elsewhere")
    assert (status, reply["error"]["where"]) == (404, "GET /elsewhere")
    status, reply = ask(f"{server}/predict")
    assert status == 405
    assert "POST /predict" in reply["error"]["expected"]


def test_an_address_that_cannot_be_had() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}"):
            listen("127.0.0.1", port)
    for host, port in (("127.0.0.1", 70_000), ("no.such.host.invalid", 0)):
        with pytest.raises(UsageError, match="nothing can be served there"):
            listen(host, port)
    with pytest.raises(UsageError, match="port"):
        listen("127.0.0.1", -1)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else known(name))
    with pytest.raises(CapabilityError, match=r"pegbox\[serve\]"):
        check_installed()


def test_the_verb_refuses_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, told = run(capsys, "serve", tmp_path, "--port", "0")
    assert (code, out) == (2, "")
    assert "pegbox.json" in told
    code, _, told = run(capsys, "serve", tmp_path, "--port", "-1")
    assert code == 2
    assert "--port" in told


PREFERRED = Preferred(index=1, text="b", probability=0.25, rewards=(1.0, 2.0))
ANSWERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "label": (
        Prediction("a", 0.75, {"a": 0.75, "b": 0.25}, deviation=0.12345678),
        {
            "predicted": "a",
            "probability": 0.75,
            "deviation": 0.123457,
            "probabilities": {"a": 0.75, "b": 0.25},
        },
    ),
    "option": (
        Choice(index=1, text="b", probability=2 / 3, probabilities=(1 / 3, 2 / 3)),
        {
            "predicted": "b",
            "predicted_index": 1,
            "probability": 0.666667,
            "probabilities": [0.333333, 0.666667],
        },
    ),
    "preference": (
        PREFERRED,
        {
            "predicted": "b",
            "predicted_index": 1,
            "probability": 0.75,
            "probabilities": [0.25, 0.75],
            "rewards": [1.0, 2.0],
        },
    ),
    "reward": (Rewarded(1.5), {"reward": 1.5, "reward_standard": None}),
    "text": (Written("so", tokens=1, finished=True), {"predicted": "so", "finished": True}),
    "entities": (
        Tagged(("Ann", "ran"), ("B-PER", "O"), (Entity("PER", 0, 1, "Ann", 0.5),)),
        {
            "predicted": ["B-PER", "O"],
            "entities": [{"type": "PER", "start": 0, "end": 1, "text": "Ann", "probability": 0.5}],
        },
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_as_json(kind: str) -> None:
    answer, wanted = ANSWERS[kind]
    assert list(answer_json(answer).items()) == list(wanted.items())


def test_of_two_answers_the_better_one_is_sure_or_not() -> None:
    assert answer_json(PREFERRED, 0.2)["abstained"]
    assert not answer_json(PREFERRED, 0.3)["abstained"]
    assert "abstained" not in answer_json(Rewarded(1.0), 0.2)


def test_a_number_that_json_lacks_is_null() -> None:
    value = {"answers": [{"reward": math.inf, "rewards": [math.nan, 1.0]}], "notes": []}
    assert _app._plain(value) == {"answers": [{"reward": None, "rewards": [None, 1.0]}], "notes": []}


def test_notes_go_to_the_reply_alone(service: Service) -> None:
    told: list[str] = []
    kept = Service({"m0": replace(service.models["m0"], say=told.append)})
    assert kept.answer(["good " * 3000])["notes"]
    assert told == []


def tuned_for(kind: str) -> pegbox.Tuned:
    """A model of one kind of task, tuned a little on its tests' own rows."""
    import test_tuning_choose
    import test_tuning_generate
    import test_tuning_tag
    from reward_toy import toy_pairs

    base = base_of("llama")
    if kind == "choose":
        return pegbox.fit(base, pegbox.Choose(), "zero-shot", rows=test_tuning_choose.ROWS, say=hush)
    if kind == "tag":
        return test_tuning_tag.fit(base, test_tuning_tag.sentences_of())
    if kind == "generate":
        return test_tuning_generate.fit(base, "lora")
    few = pegbox.Training(epochs=1, precision="float32")
    return pegbox.fit(base, pegbox.Prefer(chat="plain"), "lora", rows=toy_pairs(), training=few, say=hush)


KINDS: dict[str, tuple[str, Any, Any]] = {
    "choose": (
        "choose",
        {"question": "What is hot?", "choices": ["the tea", "a screen"]},
        ["What is hot?", ["the tea", "a screen"]],
    ),
    "tag": ("tag", {"tokens": ["staff", "said", "yes"]}, ["staff", "said", "yes"]),
    "tag of a text": ("tag", {"tokens": ["staff", "said", "yes"]}, "staff said yes"),
    "generate": ("generate", {"instruction": "What broke?"}, "What broke?"),
    "prefer": (
        "prefer",
        {"prompt": "Was it good?", "chosen": "It was great.", "rejected": "It was bad."},
        ["Was it good?", "It was great.", "It was bad."],
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_rows_of_every_kind_of_task(case: str) -> None:
    kind, whole, alone = KINDS[case]
    service = Service({kind: tuned_for(kind)})
    assert service.described()[0]["task"] == kind
    first, second = (service.answer([row, row])["answers"] for row in (whole, alone))
    assert first == second
    assert first[0] == first[1]
    json.dumps(first, allow_nan=False)
    if kind in ("tag", "generate"):
        with pytest.raises(UsageError, match="no one probability per row to abstain by"):
            service.answer([alone], abstain_above=0.2)


def test_a_single_answer_gets_its_reward() -> None:
    service = Service({"reward": tuned_for("prefer")})
    (found,) = service.answer([["Was it good?", "It was great."]])["answers"]
    assert set(found) == {"reward", "reward_standard"}
