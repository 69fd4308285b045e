"""Make a virtual environment from a lock file: `python tools/environment.py FOLDER LOCK [--editable PATH]`.

Uses uv inside the environment, which is several times faster than pip, and pip where uv cannot be installed or does
not reach the package index (uv does not read pip's configuration). Every file is checked against the hashes of the lock
either way. Runs on the standard library of Python 3.11 or newer; a second run does nothing but check.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

UV = "uv==0.13.9"
OLDEST = (3, 11)


class SetupFailed(Exception):
    """The environment could not be made; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a virtual environment from a lock file with hashes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--editable", type=Path, help="a project to install on top, in place")
    options = parser.parse_args(arguments)
    try:
        require_python()
        make(options.folder)
        install(options.folder, options.lock, options.editable)
    except SetupFailed as error:
        print(f"\nSET-UP FAILED: {error}", file=sys.stderr)
        return 1
    return 0


def require_python() -> None:
    if sys.version_info < OLDEST:
        have = ".".join(map(str, sys.version_info[:3]))
        raise SetupFailed(f"Python {have} is too old; name a 3.11 or newer one: `make PYTHON=/path/to/python3.11`")


def make(folder: Path) -> None:
    """An empty environment with pip, unless it is there and runs."""
    if _runs([*_pip(folder), "--version"], quiet=True):
        return
    print(f"making {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if not _runs([sys.executable, "-m", "venv", str(folder)]):
        raise SetupFailed("`python -m venv` failed; on Debian and Ubuntu install the package python3-venv")


def install(folder: Path, lock: Path, editable: Path | None) -> None:
    """Make the environment hold exactly what the lock names, and `editable` on top."""
    if not (_with_uv(folder, lock) or _with_pip(folder, lock)):
        raise SetupFailed(f"neither uv nor pip could install {lock} (see above); is the package index reachable?")
    in_place = [*_pip(folder), "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--editable"]
    if editable is not None and not _runs([*in_place, str(editable)]):
        raise SetupFailed(f"{editable} itself could not be installed (see above)")


def _with_uv(folder: Path, lock: Path) -> bool:
    if not _runs([*_pip(folder), "install", "--quiet", "--disable-pip-version-check", UV]):
        return False
    # --python: into this environment, whichever one the caller's shell has activated.
    print(f"installing {lock} into {folder}", flush=True)
    sync = [_python(folder), "-m", "uv", "pip", "sync", "--require-hashes", "--python", _python(folder)]
    # As pip does: compiling torch takes ten seconds, which every process would pay where caches are not written.
    return _runs([*sync, "--compile-bytecode", str(lock)])


def _with_pip(folder: Path, lock: Path) -> bool:
    print(f"uv did not work; installing {lock} into {folder} with pip, which takes some minutes", flush=True)
    return _runs([*_pip(folder), "install", "--require-hashes", "--requirement", str(lock)])


def _python(folder: Path) -> str:
    # Not resolved: the link inside the environment is what makes it one.
    return str(folder.absolute() / ("Scripts" if sys.platform == "win32" else "bin") / "python")


def _pip(folder: Path) -> list[str]:
    return [_python(folder), "-m", "pip"]


def _runs(command: list[str], quiet: bool = False) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=quiet).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
