"""The walls of the house stand: who imports whom, what importing does, and what may not be in the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backend", "demo", "evidence", "migrations", "model", "pretraining", "protocols", "simulation", "strategies")
# Alembic runs these; they are no modules to import.
RUN_BY_ALEMBIC = ("migrations/env.py",)
HEAVY = ("torch", "open_clip", "cv2", "label_studio_sdk")

IMPORT_ALL = """
import logging, os, pathlib, signal, socket, sys, threading

def closed(*_, **__):
    raise AssertionError("a socket was opened while importing")

socket.socket.connect = socket.getaddrinfo = closed
before = (dict(os.environ), signal.getsignal(signal.SIGTERM), logging.getLogger().handlers[:], sorted(os.listdir()))
sys.path.insert(0, {root!r})
for name in {modules!r}:
    __import__(name)
after = (dict(os.environ), signal.getsignal(signal.SIGTERM), logging.getLogger().handlers[:], sorted(os.listdir()))
assert before == after, (before, after)
assert threading.active_count() == 1, threading.enumerate()
"""


def modules(*rooms: str) -> list[str]:
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    names = [path.relative_to(ROOT) for path in paths if str(path.relative_to(ROOT)) not in RUN_BY_ALEMBIC]
    return [".".join(name.with_suffix("").parts).removesuffix(".__init__") for name in names]


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a bare environment, in an empty folder."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rooms_are_imported_and_not_the_tests_of_the_same_name():
    import model
    import strategies

    for room in (model, strategies):
        assert Path(str(room.__file__)).parent.parent == ROOT


def test_importing_does_nothing(tmp_path: Path):
    done = python(IMPORT_ALL.format(root=str(ROOT), modules=modules(*ROOMS)), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ["backend.app", "backend.cli", "backend.worker"])
def test_entry_points_start_without_the_heavy_libraries(entry: str, tmp_path: Path):
    """The API must answer in a second, and the worker leaves training to processes of its own."""
    found = f"print(*(name for name in {HEAVY} if name in sys.modules))"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {entry}; {found}"
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == []


def tracked() -> list[Path]:
    """What the repository holds or would hold; without git, everything outside the environments."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        pytest.skip("this is no git repository: what it would hold cannot be listed")
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_registry_host_and_no_path_of_one_machine_is_in_the_repository():
    # Written in two parts, so that this file passes its own test.
    hosts = (
        "pypi" + ".org",
        "python" + "hosted",
        "npmjs" + ".org",
        "proxy" + ".golang",
        "--index" + "-url",
        "find" + "-links",
    )
    machine = re.compile(r"(?<![\w.}/-])/(?:" + "work" + "|root" + r"|home/\w+|Users/\w+)/")
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert not [host for host in hosts if host in text], path
        assert not machine.search(text), path


def test_nothing_large_and_no_image_is_in_the_repository():
    # The one exception is what a machine without network starts from; its own tests bound its size.
    packaged = ROOT / "model" / "weights" / "tiny.safetensors"
    for path in tracked():
        if path == packaged:
            continue
        assert path.stat().st_size < 1_000_000, path
        assert path.suffix.lower() not in {".png", ".jpg", ".jpeg", ".safetensors", ".db", ".sqlite3", ".pt", ".pkl"}, (
            path
        )


def test_nothing_is_left_to_do_in_the_code():
    unfinished = re.compile("TO" + "DO|FIX" + "ME|XX" + "X|NotImpl" + "ementedError")
    for path in tracked():
        if path.suffix == ".py":
            found = unfinished.search(path.read_text())
            assert not found, f"{path}: {found and found.group()}"
