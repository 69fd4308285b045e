"""`python -m simulation` from outside: resuming, refusals, and one small run of the real model."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.phantoms import write_dataset
from simulation.__main__ import main, parser, simulate
from tests.simulation.fakes import FakeLearner, write_folder


def arguments(tmp_path: Path, **changed: object) -> list[str]:
    options = {"rounds": 2, "query-size": 3, "seed-size": 4, "seeds": 2, "out": tmp_path / "out"} | changed
    data = write_folder(tmp_path / "data", 24)
    return [str(data), *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


def run(tmp_path: Path, **changed: object) -> FakeLearner:
    learner = FakeLearner()
    simulate(parser().parse_args(arguments(tmp_path, **changed)), lambda _options, _progress: learner)
    return learner


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_arm_runs_every_round_and_the_folder_holds_the_report(tmp_path: Path) -> None:
    run(tmp_path)
    expected = [(s, str(seed), str(i)) for s in ("random", "entropy") for seed in range(2) for i in range(3)]
    assert [(row["strategy"], row["seed"], row["round"]) for row in rows(tmp_path)] == expected
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"results.csv", "report.md", "learning_curve.svg", "settings.json"}


def test_a_complete_arm_is_not_run_again_a_broken_off_one_is(tmp_path: Path) -> None:
    run(tmp_path)
    table = tmp_path / "out" / "results.csv"
    before = rows(tmp_path)
    assert run(tmp_path).trained == []
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    learner = run(tmp_path)
    assert [seed for seed, _ in learner.trained] == [1, 1, 1], "only the last arm, entropy with seed 1, from its start"
    without_time = [[{**row, "seconds": ""} for row in table] for table in (before, rows(tmp_path))]
    assert without_time[0] == without_time[1]


def test_strategies_and_seeds_can_be_added_later(tmp_path: Path) -> None:
    run(tmp_path, strategies="random", seeds=1)
    assert len(run(tmp_path, seeds=2).trained) == 3 * 3
    assert len(rows(tmp_path)) == 2 * 2 * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategies": "random,entropi"}, "no strategy is called 'entropi'; there are entropy, random"),
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
    assert "entropy, random" in answer.stdout


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
    assert main([str(data), "--strategies=entropy", f"--out={tmp_path / 'out'}", *small]) == 0
    assert [(row["n_labels"], row["steps"]) for row in rows(tmp_path)] == [("2", "2"), ("4", "2")]
    assert all(0 <= float(row["dice"]) <= 1 for row in rows(tmp_path))
