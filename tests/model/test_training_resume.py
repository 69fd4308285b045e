"""A run that was killed at any step goes on to the weights of one that was not."""

import dataclasses
import signal
import subprocess
import sys

import pytest

from model import CheckpointUnreadable, ResumeMismatch, fine_tune
from tests.model.runs import SHORT, VALIDATED, Stopped, same, small, stop_after, ticking, validate_often, weights


@pytest.fixture(scope="module")
def start():
    return small()


@pytest.fixture(scope="module")
def whole(start, examples):
    """What an undisturbed run makes, by its interval between states, which must not matter."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        validate_often(monkeypatch)
        return weights(fine_tune(start, examples, VALIDATED))


@pytest.mark.parametrize(("stop", "interval_seconds"), [(1, 0), (2, 0), (5, 0), (5, 3), (6, 1000)])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(
    start, examples, whole, tmp_path, monkeypatch, stop, interval_seconds
):
    validate_often(monkeypatch)
    state = tmp_path / "state.safetensors"
    config = dataclasses.replace(VALIDATED, state_interval_seconds=interval_seconds)
    with pytest.raises(Stopped):
        fine_tune(start, examples, config, on_progress=stop_after(stop), resume_from=state, clock=ticking())
    steps = []
    resumed = fine_tune(start, examples, config, on_progress=lambda p: steps.append(p.step), resume_from=state)
    assert same(whole, weights(resumed))
    if interval_seconds == 0:  # the state is written after on_progress
        assert steps == list(range(stop, 7))
    if interval_seconds == 1000:
        assert steps == [1, 2, 3, 4, 5, 6]


def test_the_best_weights_survive_a_kill(start, examples, tmp_path, monkeypatch):
    from model import validation

    validate_often(monkeypatch)
    dice = {1: 0.2, 2: 0.8, 3: 0.4, 4: 0.8, 5: 0.1, 6: 0.3}
    monkeypatch.setattr(validation, "mean_dice", lambda *inputs: dice[inputs[3]])
    state = tmp_path / "state.safetensors"
    undisturbed = fine_tune(start, examples, VALIDATED)
    assert not same(
        weights(undisturbed), weights(fine_tune(start, examples, dataclasses.replace(VALIDATED, keep="last")))
    )
    with pytest.raises(Stopped):
        fine_tune(start, examples, VALIDATED, on_progress=stop_after(4), resume_from=state)
    assert same(weights(undisturbed), weights(fine_tune(start, examples, VALIDATED, resume_from=state)))


PROGRAM = """
import os, pickle, signal, sys
from pathlib import Path
import torch
from model import fine_tune
from tests.model.runs import SHORT, small
torch.set_num_threads(1)
replace, writes = os.replace, []
def deadly(*paths):
    writes.append(paths)
    if len(writes) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = deadly
examples = eval(sys.argv[2], {"Example": __import__("model").Example, "PosixPath": Path})
fine_tune(small(), examples, SHORT, resume_from=Path(sys.argv[1]))
"""


def test_a_process_killed_while_it_writes_its_state_is_no_loss(start, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    command = [sys.executable, "-c", PROGRAM, str(state), repr(examples)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps = []
    resumed = fine_tune(start, examples, SHORT, resume_from=state, on_progress=lambda p: steps.append(p.step))
    assert steps == [4, 5, 6]
    assert same(weights(resumed), weights(fine_tune(start, examples, SHORT)))


def test_time_already_used_counts(start, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    config = dataclasses.replace(SHORT, max_steps=1000, time_limit_seconds=9.5)
    with pytest.raises(Stopped):
        fine_tune(start, examples, config, on_progress=stop_after(3), resume_from=state, clock=ticking())
    seconds = []
    fine_tune(
        start, examples, config, on_progress=lambda p: seconds.append(p.seconds), resume_from=state, clock=ticking()
    )
    assert seconds[0] > 3 and seconds[-1] >= 9.5 and all(s < 9.5 for s in seconds[:-1])


def test_a_finished_run_is_not_repeated(start, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    whole = fine_tune(start, examples, VALIDATED, resume_from=state)
    again = fine_tune(start, examples, VALIDATED, on_progress=stop_after(1), resume_from=state)
    assert same(weights(whole), weights(again))


def test_the_state_of_another_run_is_refused(start, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    fine_tune(start, examples, SHORT, resume_from=state)
    for other_start, chosen, config, aside in (
        (small(seed=9), examples, SHORT, ()),
        (start, examples[1:], SHORT, ()),
        (start, examples, dataclasses.replace(SHORT, seed=4), ()),
        (start, examples, SHORT, examples[:1]),
    ):
        with pytest.raises(ResumeMismatch, match="remove it"):
            fine_tune(other_start, chosen, config, resume_from=state, validation=aside)


def test_a_damaged_state_is_refused(start, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(CheckpointUnreadable, match=r"state\.safetensors"):
        fine_tune(start, examples, SHORT, resume_from=state)
