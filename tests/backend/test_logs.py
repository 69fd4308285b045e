"""Every line says what it is about, whoever wrote it, and none says a secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from backend import logs
from backend.settings import Settings

PASSWORD = "pl4nted-pa55word"
TOKEN = "pl4nted.api-token/0f3c"
STUDIO_TOKEN = "pl4nted-label-studio-token"
ours = logging.getLogger("backend.rounds.machine")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Logging is of the whole process: leave it as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def set_up(folder: Path, **changed: Any) -> None:
    given: dict[str, Any] = {
        "data_dir": folder,
        "log_format": "json",
        "database_url": f"postgresql://ward:{PASSWORD}@db.test/ward",
        "broker_url": f"amqp://ward:{PASSWORD}@broker.test//",
        "api_token": SecretStr(TOKEN),
        "label_studio_token": SecretStr(STUDIO_TOKEN),
    }
    logs.set_up(Settings(**(given | changed)))


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_what_is_bound_is_in_every_line_inside_and_in_none_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(tmp_path)
    with logs.bound(round=3, project=1):
        ours.info("next %s", "train")
        with logs.bound(task=9, round=4):
            logging.getLogger("a.library").warning("of a third party")
        structlog.get_logger("backend.x").info("by structlog", model_version=2)
    ours.info("outside")
    first, second, third, last = lines(capsys)
    assert (first["event"], first["level"], first["logger"]) == ("next train", "info", "backend.rounds.machine")
    assert (first["round"], first["project"]) == (3, 1)
    assert (second["logger"], second["round"], second["project"], second["task"]) == ("a.library", 4, 1, 9)
    assert (third["round"], third["model_version"]) == (3, 2)
    assert "task" not in third
    assert not {"round", "project", "task"} & last.keys()
    assert all("timestamp" in line for line in (first, second, third, last))


def test_two_threads_do_not_mix_what_they_bind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(tmp_path)
    together = threading.Barrier(2)

    def work(number: int) -> None:
        with logs.bound(round=number):
            together.wait()
            ours.info("%s", number)
            together.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(line["round"] == int(line["event"]) for line in lines(capsys))


def test_text_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(tmp_path, log_format="text", log_level="WARNING")
    with logs.bound(round=3):
        ours.info("too quiet")
        try:
            raise ValueError("broken")
        except ValueError:
            ours.exception("it stopped")
    first, *trace = capsys.readouterr().err.splitlines()
    assert first.endswith(" ERROR backend.rounds.machine: it stopped round=3")
    assert trace[0].startswith("Traceback")
    assert trace[-1] == "ValueError: broken"


def test_setting_up_twice_does_not_say_things_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(tmp_path)
    set_up(tmp_path)
    ours.info("once")
    logging.getLogger("httpx").info("GET https://labels.test/?token=abc")
    assert [line["event"] for line in lines(capsys)] == ["once"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_planted_secret_is_ever_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    set_up(tmp_path, log_format=log_format)
    settings_url = f"postgresql://ward:{PASSWORD}@db.test/ward"
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Wardround-Secret": "s3cret", "Accept": "*/*"}
    ours.warning("the broker %s is down", f"amqp://ward:{PASSWORD}@broker.test//")
    ours.warning("sent %s", headers)
    ours.warning("sent %s", [(b"authorization", f"Token {STUDIO_TOKEN}".encode())])
    ours.warning("the token alone: %s", TOKEN)
    structlog.get_logger("x").warning("structured", headers=headers, api_token=TOKEN, urls=[settings_url])
    with logs.bound(url=settings_url, password=PASSWORD):
        try:
            raise OSError(f"no connection to {settings_url}")
        except OSError:
            ours.exception("lost")
    said = capsys.readouterr().err
    for secret in (PASSWORD, TOKEN, STUDIO_TOKEN, "s3cret"):
        assert secret not in said
    for harmless in ("ward:[redacted]@broker.test", "db.test/ward", "*/*", "OSError", "lost"):
        assert harmless in said


@pytest.mark.parametrize(
    "text",
    [
        "redis://:0therSecret@cache.test:6379/0",
        "https://someone:0ther@Secret@labels.test/x",
        "GET https://files.test/a.png?X-Amz-Signature=0therSecret&x=1",
        "GET https://files.test/a.png?token=0therSecret",
        "Authorization: Bearer 0therSecret",
        "authorization=Basic 0therSecret==",
        "{'x-wardround-secret': '0therSecret'}",
        '{"Cookie": "sessionid=0therSecret"}',
        "it answered to Bearer 0therSecret with 401",
    ],
)
def test_secrets_nobody_told_us_are_known_by_their_place(text: str) -> None:
    cleaned = logs.Redaction()(None, "", {"event": text})["event"]
    assert "Secret" not in cleaned.replace("x-wardround-secret", "")
    assert logs.REDACTED in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "the token refreshing failed at 10:00",
        "show WARDROUND_API_TOKEN as basic auth password (user wardround) or as bearer token",
        "https://labels.test:8080/projects/1?page=2",
        "task 7 of s3://bucket/wardround/a@b.png is left out",
        "round 3 of project 1: selected, next trained",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert logs.Redaction(["short"])(None, "", {"event": text, "round": 3}) == {"event": text, "round": 3}


@given(st.text("abYZ019+/=._-", min_size=12, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_removed_wherever_it_stands(secret: str, before: str, after: str) -> None:
    nested = {"event": before + secret + after, "more": {"list": [secret, {"deep": secret}]}}
    cleaned = logs.Redaction([secret])(None, "", nested)
    assert secret not in cleaned["event"]
    assert cleaned["more"] == {"list": [logs.REDACTED, {"deep": logs.REDACTED}]}
