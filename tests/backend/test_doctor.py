"""The doctor's command: what it prints, its exit status, and that a cure that fails stops no other."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend import connect as connecting
from backend import doctor, rounds
from backend.context import Context
from backend.doctor import access
from backend.label_studio import inspection
from backend.label_studio.errors import LabelStudioRefused
from backend.tables import Project
from tests.backend.conftest import World
from tests.backend.connectable import Connectable

PROJECT = 1
pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


class Answering(Connectable):
    """Takes every address and tells what it is asked."""

    def require_access(self) -> None:
        self._answer()

    def release(self) -> str:
        return "1.23.2"

    def lock_seconds(self) -> float | None:
        return 3600.0

    def refusals(self, project_id: int, url: str) -> inspection.Refusals:
        return inspection.Refusals(None, None)


@pytest.fixture
def label_studio() -> Answering:
    fake = Answering()
    for task_id in range(1, 4):
        fake.add_task(task_id)
    return fake


@pytest.fixture
def ctx(world: World, label_studio: Answering, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Connected and well, with an API that answers."""
    ctx = replace(world.ctx, label_studio=label_studio)  # type: ignore[arg-type]
    with ctx.store.begin() as s:
        s.delete(s.get(Project, PROJECT))
    done = connecting.connect(ctx, PROJECT, {})
    assert done.round_id is not None and rounds.run(ctx, done.round_id)
    monkeypatch.setattr(inspection, "ask", lambda *_: inspection.Answers(None, True, True))
    monkeypatch.setattr(commands, "_context", lambda: ctx)
    return ctx


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands.cli, ["doctor", *arguments])
    return done.exit_code, done.stdout


def test_a_healthy_project_is_said_to_be_well(ctx: Context, label_studio: Answering) -> None:
    changes = label_studio.changes
    for arguments in ([], ["1"], ["1", "--fix"], ["--fix"]):
        status, said = run(*arguments)
        assert (status, label_studio.changes) == (0, changes)
        assert said.splitlines()[-1] == "nothing is wrong"
        assert "unchecked  whether a project has several ProjectMember rows" in said


def test_findings_are_said_with_their_cure_and_fail_the_command(ctx: Context, label_studio: Answering) -> None:
    label_studio.settings |= {"sampling": "Sequential sampling", "maximum_annotations": 2}
    changes = label_studio.changes
    status, said = run("1")
    assert (status, label_studio.changes) == (1, changes), "looking changes nothing"
    assert "error      sampling: " in said
    assert "cure set sampling to 'Uncertainty sampling' (`--fix` does it)" in said
    assert "warning    overlap: " in said
    status, said = run("1", "--fix")
    assert status == 1, "one is left, which only people can put right"
    assert "fixed      sampling: " in said
    assert "overlap" in said and "error" not in said


def test_scripts_read_records(ctx: Context, label_studio: Answering) -> None:
    label_studio.settings["sampling"] = "Sequential sampling"
    status, said = run("--json")
    (found,) = json.loads(said)["findings"]
    assert (status, found["code"], found["severity"], found["project"]) == (1, "sampling", "error", PROJECT)
    assert set(found) == {"code", "severity", "project", "message", "cure", "fixable"}
    assert found["fixable"] is True
    status, said = run("--json", "--fix")
    assert status == 0
    assert [one["code"] for one in json.loads(said)["fixed"]] == ["sampling"]
    assert json.loads(said)["findings"] == []


def test_no_secret_is_said(ctx: Context, label_studio: Answering) -> None:
    label_studio.hooks[0]["headers"] = {"X-Wardround-Secret": "an-older-secret"}
    label_studio.backends[0]["basic_auth_user"] = "somebody"
    status, said = run("--json")
    assert status == 1 and "webhook-secret" in said and "backend-changed" in said
    for secret in ("an-older-secret", "the-webhook-secret", "the-api-token", "a-token"):
        assert secret not in said


def test_a_cure_that_fails_is_said_and_stops_no_other(
    ctx: Context, label_studio: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise LabelStudioRefused("POST /api/webhooks/ was answered 403: banned", 403)

    label_studio.hooks.clear()
    label_studio.settings["sampling"] = "Sequential sampling"
    monkeypatch.setattr(label_studio, "create_webhook", refuse)
    found = doctor.fix(ctx, PROJECT)
    assert [finding.code for finding in found.findings] == ["webhook-missing"]
    assert [finding.code for finding in found.fixed] == ["sampling"]
    assert "banned" in found.failed["webhook-missing"]
    assert "could not be fixed: POST /api/webhooks/ was answered 403: banned" in doctor.in_words(found)


def test_the_label_studio_side_is_looked_at_without_any_project(ctx: Context, label_studio: Answering) -> None:
    label_studio.down = True
    status, said = run()
    assert status == 1 and "label-studio-unreachable" in said


def test_a_host_needs_a_dot_unless_it_is_an_address(ctx: Context) -> None:
    hosts = ("api", "localhost", "10.0.0.1", "::1", "wardround.internal", "")
    assert [access._is_full_name(host) for host in hosts] == [False, True, True, True, True, False]


def test_connect_and_disconnect_say_what_they_do(ctx: Context, label_studio: Answering) -> None:
    said = CliRunner().invoke(commands.cli, ["connect", "1", "--dry-run"])
    assert (said.exit_code, said.stdout) == (0, "would change nothing: all is as it should be\n")
    label_studio.settings["sampling"] = "Sequential sampling"
    said = CliRunner().invoke(commands.cli, ["connect", "1", "--dry-run"])
    assert said.stdout == "would set sampling to 'Uncertainty sampling'\n"
    assert label_studio.settings["sampling"] == "Sequential sampling"
    said = CliRunner().invoke(commands.cli, ["connect", "1"])
    assert said.stdout.startswith("set sampling to 'Uncertainty sampling'\nLesion: “Lesion”\nproject 1 is connected: 3")
    said = CliRunner().invoke(commands.cli, ["disconnect", "1"])
    assert said.stdout == "project 1 is disconnected; `wardround connect 1` takes it up again\n"
