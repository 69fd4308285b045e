"""Two processes that share every batch learn what one learns, up to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import BadConfig, distributed, fine_tune
from tests.model import torchrun_program
from tests.model.conftest import write_example
from tests.model.runs import SHORT, distance, same, small, weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    for seed in range(6):
        write_example(folder, seed)
    return folder


@pytest.fixture(scope="module")
def by_two(folder):
    """What each of two processes has learnt."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = str(ROOT / "tests/model/torchrun_program.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = subprocess.Popen(
        [*command, program, str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = torchrun.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        torchrun.terminate()  # it takes its processes along, as it could not if it were killed
        output = "the processes wait for each other:\n" + torchrun.communicate()[0]
    assert torchrun.returncode == 0, output
    return [torch.load(folder / f"learnt-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def by_one(folder):
    return torchrun_program.run_all(folder)


@pytest.mark.parametrize("name", ["shared", "left over", "timed", "resumed", "short of memory"])
def test_two_processes_learn_what_one_does(by_one, by_two, name):
    (alone, _), ((first, _), (second, _)) = by_one, by_two
    expected = alone["resumed" if name == "short of memory" else name]
    assert same(first[name], second[name])
    assert 0 <= distance(first[name], expected) < 0.05 * distance(expected, weights(small()))


def test_they_agree_on_how_good_it_is(by_one, by_two):
    assert by_two[0][1][-1] == pytest.approx(by_one[1][-1], abs=1e-3)
    assert by_two[1][1] == []  # only the first process reports


def test_a_process_by_itself_is_the_first_of_one():
    with distributed.join() as device:
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert distributed.any_of(True, device) and not distributed.any_of(False, device)


def test_a_batch_of_fewer_images_than_processes_is_refused(examples, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 8)
    with pytest.raises(BadConfig, match="8 processes cannot share batches of 4"):
        fine_tune(small(), examples, SHORT)
