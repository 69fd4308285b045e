"""The programs behind the Makefile."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import ensure_browser, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment, made where half a one lay."""
    folder = tmp_path_factory.mktemp("tools") / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half an environment")
    environment.make(folder)
    return folder


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package of one line, so that nothing has to come from the network."""
    path = tmp_path / "tiny_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny_package.py", "HERE = True\n")
        file.writestr(
            "tiny_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n"
        )
        file.writestr(
            "tiny_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny_package-1.0.dist-info/RECORD", "")
    return path


def lock_of(wheel: Path, digest: str) -> Path:
    lock = wheel.with_name("requirements.lock")
    lock.write_text(f"tiny-package @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return lock


def test_an_old_python_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(environment.SetupFailed, match=r"3\.10\.4 is too old.*make PYTHON="):
        environment.require_python()


def test_an_environment_that_does_not_run_is_made_again(folder: Path):
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "--version"], check=True, capture_output=True)


def test_without_uv_pip_installs_what_the_lock_names(folder: Path, wheel: Path, monkeypatch):
    monkeypatch.setattr(environment, "_with_uv", lambda *_: False)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert environment.main([str(folder), str(lock_of(wheel, digest))]) == 0
    subprocess.run([str(folder / "bin" / "python"), "-c", "import tiny_package"], check=True)


def test_a_file_that_does_not_match_its_hash_is_not_installed(folder: Path, wheel: Path, monkeypatch, capfd):
    monkeypatch.setattr(environment, "_with_uv", lambda *_: False)
    assert environment.main([str(folder), str(lock_of(wheel, "0" * 64))]) == 1
    assert "SET-UP FAILED" in capfd.readouterr().err


def test_the_browser_named_in_the_environment_comes_first(tmp_path: Path, monkeypatch):
    browser = tmp_path / "my-chromium"
    browser.touch()
    monkeypatch.setenv("WARDROUND_CHROMIUM", str(browser))
    assert ensure_browser.find() == browser


def test_no_browser_is_said_loudly_and_is_no_failure(monkeypatch, capsys):
    monkeypatch.setattr(ensure_browser, "ensure", lambda: None)
    assert ensure_browser.main() == 0
    assert "WILL BE SKIPPED" in capsys.readouterr().err


def test_a_browser_that_is_there_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ensure_browser, "find", lambda: tmp_path)
    monkeypatch.setattr(ensure_browser, "_run", lambda command: pytest.fail(f"ran {command}"))
    assert ensure_browser.ensure() == tmp_path
