"""Make sure a Chromium is there for the browser tests, and print its path.

Order: WARDROUND_CHROMIUM · a Chromium or Chrome on PATH · the one Playwright installed · Debian's package, as root ·
`playwright install chromium`. When nothing works it says so loudly and still ends with status 0: every other test can
run. Only the standard library is needed; Playwright is asked when it is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> Path | None:
    """The Chromium to use, or None. Installs nothing."""
    return _from_environment() or _on_path() or _of_playwright()


def ensure() -> Path | None:
    """The Chromium to use, installed when it was missing; None when that failed."""
    found = find()
    if found is not None:
        return found
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "update", "-q"])
        _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])
    if find() is None:
        _run([sys.executable, "-m", "playwright", "install", "chromium"])
    return find()


def main() -> int:
    path = ensure()
    if path is None:
        print("!" * 78, file=sys.stderr)
        print("!! No Chromium found and none could be installed: THE BROWSER TESTS WILL BE SKIPPED.", file=sys.stderr)
        print("!! Install one and put it on PATH, or name it in WARDROUND_CHROMIUM.", file=sys.stderr)
        print("!" * 78, file=sys.stderr)
    else:
        print(f"browser tests use {path}")
    return 0


def _from_environment() -> Path | None:
    named = os.environ.get("WARDROUND_CHROMIUM")
    return Path(named) if named and Path(named).exists() else None


def _on_path() -> Path | None:
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    return None


def _of_playwright() -> Path | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.exists() else None


def _run(command: list[str]) -> None:
    print("+", " ".join(command), file=sys.stderr)
    try:
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"  did not work: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
