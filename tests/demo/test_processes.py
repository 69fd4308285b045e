"""Child processes: nothing outlives its stop, and what went wrong is said with the log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.errors import ChildDied, NotInstalled, PortBusy
from demo.processes import LOOPBACK, Child, Children, free_port, require_free, tail

ROOT = Path(__file__).resolve().parents[2]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Starts a grandchild, says its pid, and ignores the polite request to end.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
    "time.sleep(600)",
]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended but was not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_stop_ends_the_whole_group_even_when_it_will_not(tmp_path: Path):
    child = Child("stubborn", STUBBORN, log=tmp_path / "log")
    child.start()
    wait_for(lambda: tail(child.log))
    grandchild = int(tail(child.log))
    child.stop(grace_seconds=0.2)
    assert not child.running
    wait_for(lambda: not alive(grandchild))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's own")
def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path):
    script = (
        "import sys, time; from pathlib import Path; from demo.processes import Child\n"
        f"c = Child('x', {SLEEP!r}, log=Path(sys.argv[1])); c.start(); print(c.pid, flush=True); time.sleep(600)"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert demo.stdout is not None
    child = int(demo.stdout.readline())
    assert alive(child)
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    demo.stdout.close()
    wait_for(lambda: not alive(child))


def test_a_child_that_ends_early_is_reported_with_its_log(tmp_path: Path):
    child = Child(
        "failing", [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"], log=tmp_path / "log"
    )
    child.start()
    with pytest.raises(ChildDied, match=r"(?s)failing ended with status 3.*no such table"):
        child.wait_until(lambda: False, timeout_seconds=60)


def test_a_child_that_never_gets_ready_is_reported(tmp_path: Path):
    waited: list[float] = []
    with Child("slow", SLEEP, log=tmp_path / "log") as child, pytest.raises(ChildDied, match="not ready after 1 s"):
        child.wait_until(lambda: False, timeout_seconds=1.3, on_wait=waited.append, poll_seconds=0.05)
    assert waited
    assert not child.running


def test_a_missing_program_is_named(tmp_path: Path):
    with pytest.raises(NotInstalled, match="/nowhere/at-all"):
        Child("missing", ["/nowhere/at-all"], log=tmp_path / "log").start()


def test_children_are_stopped_last_first_and_twice_does_no_harm(tmp_path: Path):
    children = Children()
    started = [children.start(Child(name, SLEEP, log=tmp_path / name)) for name in ("first", "second")]
    children.require_running()
    os.kill(started[0].pid or 0, signal.SIGKILL)
    wait_for(lambda: not started[0].running)
    with pytest.raises(ChildDied, match="first ended"):
        children.require_running()
    children.stop()
    children.stop()
    assert not any(child.running for child in started)


def test_stop_before_start_does_nothing(tmp_path: Path):
    Child("unused", SLEEP, log=tmp_path / "log").stop()


def test_a_busy_port_is_refused_and_a_free_one_is_not():
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(PortBusy, match=str(taken.getsockname()[1])):
            require_free(taken.getsockname()[1])
    require_free(free_port())
