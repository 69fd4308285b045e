"""`python -m simulation` from outside: resuming, refusals, and one small run of the real model."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from demo.phantoms import write_dataset
from simulation.__main__ import main, parser, simulate
from tests.simulation.fakes import FakeLearner, write_folder

ROOT = Path(__file__).resolve().parents[2]


def arguments(tmp_path: Path, **changed: object) -> list[str]:
    options = {
        "strategies": "random,entropy", "rounds": 2, "query-size": 3, "seed-size": 4, "seeds": 2, "jobs": 1,
        "out": tmp_path / "out",
    } | changed  # fmt: skip
    data = write_folder(tmp_path / "data", 24)
    flags = (f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in options.items())
    return [str(data), *flags]


def run(tmp_path: Path, **changed: object) -> FakeLearner:
    learner = FakeLearner()
    simulate(parser().parse_args(arguments(tmp_path, **changed)), lambda: learner)
    return learner


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_arm_runs_every_round_and_the_folder_holds_the_report(tmp_path: Path) -> None:
    run(tmp_path)
    expected = [(s, str(seed), str(i)) for s in ("entropy", "random") for seed in range(2) for i in range(3)]
    found = [(row["strategy"], row["seed"], row["round"]) for row in rows(tmp_path)]
    assert found == [("all labels", "0", "0"), ("all labels", "1", "0"), *expected]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {"learning_curve.svg", "penalty_matrix.svg", "asked.png"}
    assert written == {"results.csv", "report.md", "settings.json", "arms"} | figures


def test_the_seed_set_is_trained_on_once_a_seed(tmp_path: Path) -> None:
    sizes = [(seed, len(ids)) for seed, ids in run(tmp_path).trained]
    assert sizes.count((0, 4)) == sizes.count((1, 4)) == 1
    assert sizes.count((0, 7)) == sizes.count((1, 10)) == 2, "once for each strategy"


def test_nothing_that_is_done_is_done_again_and_what_is_missing_is(tmp_path: Path) -> None:
    run(tmp_path)
    before = rows(tmp_path)
    assert run(tmp_path).trained == []
    arm = tmp_path / "out" / "arms" / "entropy-1.json"
    arm.write_text(json.dumps(json.loads(arm.read_text(encoding="utf-8"))[:-1]), encoding="utf-8")
    learner = run(tmp_path)
    assert [(seed, len(ids)) for seed, ids in learner.trained] == [(1, 10)], "only the round that is missing"
    without_time = [[{**row, "seconds": ""} for row in table] for table in (before, rows(tmp_path))]
    assert without_time[0] == without_time[1]


def test_arms_of_several_processes_are_those_of_one(tmp_path: Path) -> None:
    for jobs, out in ((1, "one"), (2, "two")):
        options = parser().parse_args(arguments(tmp_path, jobs=jobs, out=tmp_path / out))
        simulate(options, FakeLearner)
    one, two = ((tmp_path / out / "results.csv").read_text(encoding="utf-8").splitlines() for out in ("one", "two"))
    columns = one[0].split(",")
    at = columns.index("seconds")
    assert [row.split(",")[:at] for row in one] == [row.split(",")[:at] for row in two]


def test_a_folder_without_a_table_takes_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images", "masks"):
        (tmp_path / "bare" / name).mkdir(parents=True)
        for i in range(12):
            (tmp_path / "bare" / name / f"{i:02}.png").touch()
    _, *rest = arguments(tmp_path, strategies="random", seeds=1, rounds=1)
    assert main([str(tmp_path / "bare"), *rest]) == 2
    assert "--prompt" in capsys.readouterr().err
    simulate(parser().parse_args([str(tmp_path / "bare"), *rest, "--prompt=a polyp"]), FakeLearner)
    assert len(rows(tmp_path)) == 3


def test_strategies_and_seeds_can_be_added_later(tmp_path: Path) -> None:
    run(tmp_path, strategies="random", seeds=1, skip_all_labels=True)
    assert len(run(tmp_path, seeds=2).trained) == (1 + 3) + (1 + 1 + 2 + 2), "what is missing of each seed"
    assert len(rows(tmp_path)) == 2 + 2 * 2 * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategies": "random,entropi"}, "no strategy is called 'entropi'; there are "),
        ({"strategies": ","}, "nothing to run"),
        ({"seeds": 0}, "nothing to run"),
        ({"rounds": 20}, "asks for 64 labels"),
        ({"held_out_share": 1.5}, "held-out share"),
        ({"max_steps": 0}, "max_steps"),
        ({"backbone": "huge"}, "huge"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], message: str
) -> None:
    assert main(arguments(tmp_path, **changed)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_folder_that_is_none_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "pairs.csv does not exist" in capsys.readouterr().err
    run(tmp_path)
    assert main(arguments(tmp_path, query_size=4)) == 2
    assert "query_size was 3, is 4" in capsys.readouterr().err


def test_help_names_the_strategies_and_loads_no_torch() -> None:
    program = "import sys, simulation.__main__ as s; s.parser().print_help(); sys.exit('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "foreground_random" in answer.stdout


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a run only waits for further threads, for minutes when the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_real_model_goes_round_once(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "phantoms", 8, seed=0)
    small = ["--rounds=1", "--query-size=2", "--seed-size=2", "--seeds=1", "--max-steps=2", "--n-draws=2"]
    small += ["--strategies=entropy", "--jobs=1", f"--out={tmp_path / 'out'}"]
    assert main([str(data), *small]) == 0
    found = {row["n_labels"]: row for row in rows(tmp_path) if row["strategy"] == "entropy"}
    assert [(n, row["steps"]) for n, row in found.items()] == [("2", "2"), ("4", "2")]
    assert (tmp_path / "out" / "asked.png").stat().st_size > 1000
    assert all(0 <= float(row["dice"]) <= 1 for row in rows(tmp_path))


def test_a_simulation_of_several_processes_ends_with_a_report_and_is_not_done_twice(tmp_path: Path) -> None:
    """As a person calls it: whatever one process hands to another has to survive the way."""
    data = write_dataset(tmp_path / "phantoms", 10, seed=0)
    for mask in sorted((data / "masks").iterdir())[:2]:
        Image.new("L", (256, 256)).save(mask)  # nothing is in these images, which is an answer as well
    command = [sys.executable, "-m", "simulation", str(data), "--jobs=2", "--seeds=2", "--strategies=entropy"]
    command += ["--rounds=1", "--query-size=2", "--seed-size=2", "--max-steps=2", "--n-draws=2", "--skip-all-labels"]
    command += [f"--out={tmp_path / 'out'}"]

    def called() -> list[str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=250)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if "round" in line and "labels" in line]

    assert len(called()) == 4
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "arms").iterdir()}
    assert {path.name for path in files} == {"entropy-0.json", "entropy-1.json"}
    assert "# Simulation" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert [row["n_labels"] for row in rows(tmp_path)] == ["2", "4", "2", "4"]
    assert called() == [], "no round again"
    assert {path: path.stat().st_mtime_ns for path in files} == files
