"""The `wardround` command: help for each command, one line for each mistake, JSON for scripts."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend import rounds
from backend.cli import cli
from backend.store import rounds as rows
from backend.tables import Round
from tests.backend.conftest import World

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    [], ["migrate"], ["api"], ["worker"], ["beat"], ["connect"], ["queue"], ["run-round"], ["rounds"],
    ["rounds", "list"], ["rounds", "start"], ["rounds", "show"],
]  # fmt: skip
SUMMARY = {
    "id", "number", "status", "trigger", "verdict", "reason", "n_labels", "n_held_out", "dice", "incumbent_dice",
    "difference", "interval", "published_version", "left_out", "progress", "error", "opened_at", "finished_at",
}  # fmt: skip
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands set up the logging of their process, which here is the tests'."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A complete environment; its Label Studio answers nobody."""
    for name in [name for name in os.environ if name.startswith("WARDROUND_")]:
        monkeypatch.delenv(name)
    given = {
        "WARDROUND_DATA_DIR": str(tmp_path / "data"),
        "WARDROUND_LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "WARDROUND_LABEL_STUDIO_TOKEN": "hidden-token",
        "WARDROUND_API_TOKEN": "hidden-api-token",
        "WARDROUND_WEBHOOK_SECRET": "hidden-webhook-secret",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


@pytest.fixture
def on_world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Commands speak of this world."""
    monkeypatch.setattr(commands, "_context", lambda: world.ctx)
    return world


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def complaint(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says on stderr when it fails in words; anything else it raises fails the test."""
    monkeypatch.setattr(sys, "argv", ["wardround", *arguments])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    said = stopped.value.code
    assert isinstance(said, str), "a text as exit code is printed to stderr, with status 1"
    assert said.startswith("wardround: ")
    assert "\n" not in said
    assert "hidden" not in said
    return said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(command: list[str]) -> None:
    said = run(*command, "--help")
    assert "Usage:" in said
    assert len(said.splitlines()) > 5


def test_the_list_of_commands_is_the_documented_one() -> None:
    said = run("--help")
    for command in ("migrate", "api", "worker", "beat", "connect", "queue", "rounds"):
        assert command in said
    assert "run-round" not in said, "that one is for the worker"


@pytest.mark.parametrize("command", [["worker"], ["beat"], ["api"], ["queue", "1"], ["rounds", "list", "1"]])
def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.delenv("WARDROUND_LABEL_STUDIO_TOKEN")
    assert "WARDROUND_LABEL_STUDIO_TOKEN" in complaint(monkeypatch, *command)


@pytest.mark.parametrize("name", ["WARDROUND_API_TOKEN", "WARDROUND_WEBHOOK_SECRET"])
@pytest.mark.parametrize("command", [["api"], ["connect", "1"]])
def test_the_api_does_not_start_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, name: str, command: list[str]
) -> None:
    monkeypatch.setenv(name, "")
    assert name in complaint(monkeypatch, *command)


def test_an_unusable_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_N_DRAWS", "many")
    assert "WARDROUND_N_DRAWS" in complaint(monkeypatch, "migrate")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:hidden@127.0.0.1/d",
        "postgresql+psycopg://u:hidden@127.0.0.1:9/d",
        "sqlite:////dev/null/d",
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WARDROUND_DATABASE_URL", url)
    assert "WARDROUND_DATABASE_URL" in complaint(monkeypatch, "migrate")


def test_a_label_studio_that_does_not_answer_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_studio.connection._PAUSES_SECONDS", ())
    assert "http://127.0.0.1:9" in complaint(monkeypatch, "connect", "1")


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        (["rounds", "list", "44"], "wardround connect 44"),
        (["rounds", "list", "44", "--json"], "wardround connect 44"),
        (["rounds", "start", "44"], "wardround connect 44"),
        (["queue", "44"], "wardround connect 44"),
        (["rounds", "show", "99"], "wardround rounds list"),
    ],
)
def test_what_is_not_there_is_said_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, command: list[str], cure: str
) -> None:
    assert cure in complaint(monkeypatch, *command)


@pytest.mark.parametrize("prompt", ["nonsense", "=text", "Lesion=", ""])
def test_a_prompt_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    assert "LABEL=TEXT" in complaint(monkeypatch, "connect", "1", "--prompt", prompt)


def test_prompts_may_hold_equal_signs() -> None:
    assert commands._prompts(["Lesion=T = 1", "Organ=liver"]) == {"Lesion": "T = 1", "Organ": "liver"}


def test_migrating_twice_says_where_and_hides_the_password(environment: dict[str, str]) -> None:
    for _ in range(2):
        assert str(Path(environment["WARDROUND_DATA_DIR"]) / "wardround.db") in run("migrate")


def test_rounds_are_listed_as_json_with_the_documented_keys(on_world: World) -> None:
    on_world.label_studio.add_task(1)
    on_world.pull()
    assert json.loads(run("rounds", "list", "1", "--json")) == []
    assert run("rounds", "start", "1").startswith("opened round ")
    (row,) = json.loads(run("rounds", "list", "1", "--json"))
    assert set(row) == SUMMARY
    assert (row["number"], row["status"], row["trigger"], row["error"]) == (0, "opened", "request", None)
    assert json.loads(run("rounds", "show", str(row["id"]), "--json")).keys() > SUMMARY
    assert rounds.run(on_world.ctx, row["id"])
    (place,) = json.loads(run("queue", "1", "--json"))
    assert set(place) == {"task_id", "rank", "score", "arm", "dice_bound", "verdict"}


@on_sqlite
def test_people_read_tables(on_world: World) -> None:
    on_world.label_studio.add_task(1)
    on_world.pull()
    assert rounds.run(on_world.ctx, rounds.open_now(on_world.ctx, 1))
    assert "initial" in run("rounds", "list", "1")
    assert "task_id" in run("queue", "1")


@on_sqlite
def test_a_round_that_runs_is_not_started_twice(on_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds.open_now(on_world.ctx, 1)
    assert "is running" in complaint(monkeypatch, "rounds", "start", "1")


# ------------------------------------------------------------------------------------- the process of a round

PATIENT_STEP = """
import sys, time
from pathlib import Path
from backend import cli
from backend.rounds import machine
from backend.tables import Lane, RoundStatus

busy = Path(sys.argv.pop())

def patient(job):
    busy.touch()
    for done in range(10_000):
        job.claim.report("train", done, 10_000)
        time.sleep(0.01)

machine.STEPS[RoundStatus.selected] = machine.Step(patient, Lane.training)
cli.main()
"""


@pytest.fixture
def opened(on_world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    """An open round in a database that processes of their own find."""
    monkeypatch.setenv("WARDROUND_DATABASE_URL", on_world.ctx.store.url.render_as_string(hide_password=False))
    return rounds.open_now(on_world.ctx, 1)


def row_of(world: World, round_id: int) -> Round:
    with world.ctx.store.read() as s:
        return rows.get(s, round_id)


@on_sqlite
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_round_that_is_told_to_stop_hands_itself_back(
    on_world: World, opened: int, tmp_path: Path, number: signal.Signals
) -> None:
    busy = tmp_path / "busy"
    arguments = ["run-round", str(opened), "--parent", str(os.getpid()), str(busy)]
    child = subprocess.Popen([sys.executable, "-c", PATIENT_STEP, *arguments], cwd=ROOT)
    while not busy.exists() and child.poll() is None:
        time.sleep(0.01)
    assert row_of(on_world, opened).claim
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)
    child.send_signal(number)
    assert child.wait(timeout=60) == commands.EX_TEMPFAIL
    row = row_of(on_world, opened)
    assert (row.status.value, row.claim) == ("selected", None)
    assert row.attempts < on_world.ctx.settings.max_attempts
    assert rounds.resume_unclaimed(on_world.ctx) == [opened]


@on_sqlite
def test_a_round_whose_worker_is_gone_is_not_begun(on_world: World, opened: int) -> None:
    command = [sys.executable, "-m", "backend.cli", "run-round", str(opened), "--parent", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the worker is gone" in done.stderr
    assert row_of(on_world, opened).status.value == "opened"
