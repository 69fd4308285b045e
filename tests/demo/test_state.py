"""The demo's folder: one run at a time, and never on what an earlier one left."""

from pathlib import Path

import pytest

from demo.errors import DemoRunning
from demo.state import fresh_run


def test_a_run_starts_with_nothing_of_an_earlier_one(tmp_path: Path):
    half = tmp_path / "run-1" / "wardround"
    half.mkdir(parents=True)
    (half / "wardround.db").write_text("half a database")
    with fresh_run(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        assert not half.exists()


def test_what_a_run_wrote_stays_until_the_next(tmp_path: Path):
    with fresh_run(tmp_path) as folder:
        (folder / "log").touch()
    assert (folder / "log").exists()


def test_two_demos_at_once_are_refused(tmp_path: Path):
    with fresh_run(tmp_path) as folder:
        (folder / "log").touch()
        with pytest.raises(DemoRunning, match="stop it"), fresh_run(tmp_path):
            pytest.fail("the second run was let in")
        assert (folder / "log").exists()
