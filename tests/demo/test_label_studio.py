"""Starting Label Studio: generated secrets, and clear words when it does not start."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from demo.errors import ChildDied, NotInstalled, PortBusy
from demo.label_studio import LabelStudioServer
from demo.processes import LOOPBACK


def fake(folder: Path, body: str) -> Path:
    script = folder / "label-studio"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o700)
    return script


def test_not_installed_says_how_to_install(tmp_path: Path):
    with pytest.raises(NotInstalled, match="make setup"):
        LabelStudioServer(tmp_path, executable=tmp_path / "absent").start()


def test_a_busy_port_is_refused_before_anything_starts(tmp_path: Path):
    # Label Studio itself would take the next port in silence.
    marker = tmp_path / "started"
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=str(port)):
            LabelStudioServer(tmp_path / "state", port, fake(tmp_path, f"touch {marker}")).start()
    assert not marker.exists()


def test_an_early_death_shows_the_log(tmp_path: Path):
    server = LabelStudioServer(tmp_path / "state", executable=fake(tmp_path, "echo the database is locked; exit 1"))
    with pytest.raises(ChildDied, match="the database is locked"):
        server.start()


def test_secrets_are_generated_kept_and_private(tmp_path: Path):
    one, again, other = (LabelStudioServer(tmp_path / name) for name in ("one", "one", "other"))
    assert (one.token, one.password) == (again.token, again.password)
    assert one.token != other.token
    assert one.password != other.password
    assert len(one.token) == 40
    assert (tmp_path / "one" / "secrets.json").stat().st_mode & 0o077 == 0


def test_the_callers_environment_does_not_leak_in(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("POSTGRE_HOST", "production.example.org")
    monkeypatch.setenv("LABEL_STUDIO_PASSWORD", "something else")
    seen = tmp_path / "seen"
    with pytest.raises(ChildDied):
        LabelStudioServer(tmp_path / "state", executable=fake(tmp_path, f"env > {seen}; exit 1")).start()
    environment = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert "POSTGRE_HOST" not in environment
    assert environment["LABEL_STUDIO_PASSWORD"] != "something else"
    assert environment["COLLECT_ANALYTICS"] == "0"
    assert "169.254.0.0/16" in environment["LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS"]


def test_tokens_are_signed_with_a_key_that_a_second_start_knows(tmp_path: Path):
    def key_of_a_start(folder: str) -> str | None:
        seen = tmp_path / "seen"
        with pytest.raises(ChildDied):
            LabelStudioServer(tmp_path / folder, executable=fake(tmp_path, f"env > {seen}; exit 1")).start()
        environment = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
        return environment.get("SECRET_KEY")

    key = key_of_a_start("new")
    assert key is not None and len(key) == 64 and key.isalnum()
    (tmp_path / "new" / "data").mkdir()
    assert key_of_a_start("new") == key
    (tmp_path / "older" / "data").mkdir(parents=True)
    assert key_of_a_start("older") is None, "what it signed with its own key stays good"


def test_both_kinds_of_token_open_a_real_server(label_studio: LabelStudioServer):
    with label_studio.client() as http:
        assert http.get("/api/projects/").status_code == 200
    refresh = label_studio.pat()
    assert label_studio.pat() == refresh  # Label Studio would not give it a second time
    access = httpx.post(f"{label_studio.url}/api/token/refresh/", json={"refresh": refresh}).json()["access"]
    answer = httpx.get(f"{label_studio.url}/api/projects/", headers={"Authorization": f"Bearer {access}"})
    assert answer.status_code == 200
    assert httpx.get(f"{label_studio.url}/api/projects/").status_code == 401
