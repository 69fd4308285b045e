"""`wardround simulate`: which data are meant, what goes on to the simulation, one line and status 2 for a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend.store import projects
from simulation.dataset import read_folder
from tests.backend import rows
from tests.backend.conftest import World
from tests.backend.exporting import write_export, write_images
from tests.backend.test_cli import _logging_as_before, environment, on_sqlite

__all__ = ["_logging_as_before", "environment"]  # fixtures for every test here as well

ROOT = Path(__file__).resolve().parents[2]


class Became(Exception):
    """What the process would have become."""


@pytest.fixture(autouse=True)
def _stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def execv(path: str, arguments: list[str]) -> None:
        raise Became(path, *arguments)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def annotated(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for task_id in (1, 2, 3):
        world.label_studio.add_task(task_id, group=f"patient {task_id}")
        world.label_studio.annotate(100 + task_id, task_id)
    world.pull()
    monkeypatch.setattr(commands, "_context", lambda: world.ctx)
    return world


def became(*arguments: object) -> list[str]:
    """What `python -m simulation` is called with."""
    done = CliRunner().invoke(commands.cli, ["simulate", *map(str, arguments)])
    assert isinstance(done.exception, Became), (done.output, done.exception)
    path, *given = done.exception.args
    assert [path, *given[:3]] == [sys.executable, sys.executable, "-m", "simulation"]
    return given[3:]


def complaint(*arguments: object) -> str:
    done = CliRunner().invoke(commands.cli, ["simulate", *map(str, arguments)])
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.startswith("wardround: ") and done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr
    return done.stderr


@on_sqlite
@pytest.mark.parametrize("name", ["1", "fake"])
def test_a_project_by_its_id_or_title(annotated: World, tmp_path: Path, name: str) -> None:
    (tmp_path / "1").mkdir()  # a number is an id, whatever lies around
    folder, *rest = became(name, "--rounds", "3", "--out=results", "--strategies=random,entropy", "--prompt", "a b")
    assert rest == ["--out", "results", "--rounds", "3", "--strategies=random,entropy", "--prompt", "a b"]
    assert folder == "results/labelled"
    assert [pair.id for pair in read_folder(tmp_path / folder)] == ["1", "2", "3"]


@on_sqlite
def test_an_export_with_its_images(annotated: World, tmp_path: Path) -> None:
    path = write_export(tmp_path, annotated.label_studio)
    images = write_images(tmp_path / "pictures", annotated.label_studio.images)
    assert became(path, "--images", images, "--folder=kept")[0] == "kept"
    assert [pair.group for pair in read_folder(tmp_path / "kept")] == ["patient 1", "patient 2", "patient 3"]


def test_a_labelled_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WARDROUND_")]:
        monkeypatch.delenv(name)
    (tmp_path / "images").mkdir()
    assert became(".", "--prompt=a polyp") == [".", "--out", "simulation-results", "--prompt=a polyp"]
    assert "are for an export" in complaint(".", "--images=.")


@on_sqlite
def test_the_folder_alone(annotated: World, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands.cli, ["simulate", "1", "--only-folder"])
    assert done.exit_code == 0, done.exception
    assert done.stdout == "simulation-results/labelled\n"
    assert "3 masks of 3 images in 3 groups" in done.stderr


@on_sqlite
def test_a_mistake_is_one_line_and_status_2(annotated: World, tmp_path: Path) -> None:
    (tmp_path / "min.json").write_text('[{"id": 1, "annotation_id": 2, "image": "/data/1.png"}]', encoding="utf-8")
    assert "JSON_MIN" in complaint("min.json")
    assert "there is none" in complaint("nowhere")
    assert "project 9 is not connected" in complaint("9")
    assert "not --rounds" in complaint("--rounds", "3", "1")
    with annotated.ctx.store.begin() as s:
        projects.save(s, rows.project(id=2, title="fake"))
    assert "projects 1, 2 have that title" in complaint("fake")
    annotated.label_studio.down = True
    assert "nobody answers" in complaint("1")
    assert not (tmp_path / "simulation-results" / "labelled").exists()


def test_help_shows_the_options_of_both_and_loads_no_torch() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from backend.cli import cli;"
        "print(CliRunner().invoke(cli, ['simulate', '--help'], env={'COLUMNS': '200'}).stdout);"
        "sys.exit('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    for option in ("--only-folder", "--label-config", "--strategies", "--jobs"):
        assert option in answer.stdout
