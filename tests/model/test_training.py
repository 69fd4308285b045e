"""It learns, follows its seed, can be interrupted, and says clearly why it stopped."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from model import (
    BadExample,
    CheckpointUnreadable,
    Example,
    NoExamples,
    Progress,
    ResumeMismatch,
    Segmenter,
    TrainConfig,
    TrainingDiverged,
    evaluate,
    fine_tune,
)
from model.training import schedule
from tests.model.conftest import disc

SHORT = TrainConfig(max_steps=6, time_limit_seconds=None, batch_size=4, state_interval_seconds=0)


def weights(segmenter):
    return segmenter.network.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


class Stopped(Exception):
    pass


def stop_after(step):
    def on_progress(progress):
        if progress.step == step:
            raise Stopped

    return on_progress


def test_it_learns_four_pictures_by_heart(segmenter, examples):
    config = TrainConfig(max_steps=60, time_limit_seconds=None, batch_size=4, augment=False)
    before = evaluate(segmenter, examples[:4])
    after = evaluate(fine_tune(segmenter, examples[:4], config), examples[:4])
    assert after.dice > max(0.9, before.dice + 0.2)


def test_the_same_seed_gives_the_same_weights_and_the_start_stays(segmenter, examples):
    before = {name: tensor.clone() for name, tensor in weights(segmenter).items()}
    torch.manual_seed(1)
    one = weights(fine_tune(segmenter, examples, SHORT))
    torch.manual_seed(2)
    assert same(one, weights(fine_tune(segmenter, examples, SHORT)))
    assert not same(one, weights(fine_tune(segmenter, examples, dataclasses.replace(SHORT, seed=1))))
    assert not same(one, before)
    assert same(before, weights(segmenter)) and not segmenter.network.training


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(segmenter, examples, tmp_path, stop):
    state = tmp_path / "state.safetensors"
    whole = fine_tune(segmenter, examples, SHORT)
    with pytest.raises(Stopped):
        fine_tune(segmenter, examples, SHORT, on_progress=stop_after(stop), resume_from=state)
    steps = []
    resumed = fine_tune(segmenter, examples, SHORT, on_progress=lambda p: steps.append(p.step), resume_from=state)
    assert same(weights(whole), weights(resumed))
    # An epoch is two steps here, and the state is written after on_progress.
    assert steps == list(range((stop - 1) // 2 * 2 + 1, 7))


def test_a_finished_run_is_not_repeated(segmenter, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    whole = fine_tune(segmenter, examples, SHORT, resume_from=state)
    again = fine_tune(segmenter, examples, SHORT, on_progress=stop_after(1), resume_from=state)
    assert same(weights(whole), weights(again))


def test_the_state_of_another_run_is_refused(segmenter, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    fine_tune(segmenter, examples, SHORT, resume_from=state)
    other_start = Segmenter.create(segmenter.config, seed=9)
    for start, chosen, config in (
        (other_start, examples, SHORT),
        (segmenter, examples[1:], SHORT),
        (segmenter, examples, dataclasses.replace(SHORT, seed=4)),
    ):
        with pytest.raises(ResumeMismatch, match="remove it"):
            fine_tune(start, chosen, config, resume_from=state)


def test_a_damaged_state_is_refused(segmenter, examples, tmp_path):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(CheckpointUnreadable, match=r"state\.safetensors"):
        fine_tune(segmenter, examples, SHORT, resume_from=state)


def test_progress_counts_steps_and_epochs(segmenter, examples):
    seen: list[Progress] = []
    fine_tune(segmenter, examples, SHORT, on_progress=seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.epoch for p in seen] == [0, 0, 1, 1, 2, 2]
    assert all(np.isfinite(p.loss) and p.max_steps == 6 for p in seen)
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(seen))


def test_a_run_ends_when_its_time_is_over(segmenter, examples):
    now = iter(range(100))
    seen: list[Progress] = []
    config = dataclasses.replace(SHORT, max_steps=1000, time_limit_seconds=5.0)
    fine_tune(segmenter, examples, config, on_progress=seen.append, clock=lambda: float(next(now)))
    assert len(seen) == 5


def test_every_example_is_seen_in_every_epoch(segmenter, examples):
    from model.training import TrainingSet, _Run

    config = dataclasses.replace(SHORT, batch_size=3)
    run = _Run(Segmenter.create(segmenter.config), TrainingSet.load(examples, 64), config, "job")
    epochs = []
    for step in range(4):
        run.step = step
        epochs.append(sorted(run._batch().tolist()))
    assert sorted(epochs[0] + epochs[1]) == sorted(epochs[2] + epochs[3]) == list(range(6))
    assert epochs[0] != epochs[2]


def test_one_example_is_enough(segmenter, examples):
    fine_tune(segmenter, examples[:1], dataclasses.replace(SHORT, max_steps=2))


def test_the_learning_rate_rises_and_falls():
    rates = [schedule(step / 100, 0.1) for step in range(101)]
    assert np.argmax(rates) == 10 and max(rates) == pytest.approx(1)
    assert rates[0] == rates[100] == pytest.approx(0.01)
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()
    assert schedule(3.0, 0.1) == pytest.approx(0.01)


def test_divergence_is_named_with_its_cure(segmenter, examples):
    broken = Segmenter.create(segmenter.config)
    with torch.no_grad():
        broken.network.get_parameter("mask_head.0.bias").fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"step 1 .*learning rate below 0\.002"):
        fine_tune(broken, examples, SHORT)


def test_nothing_to_train_on_and_bad_examples(segmenter, tmp_path, examples):
    with pytest.raises(NoExamples):
        fine_tune(segmenter, [], SHORT)
    Image.fromarray(disc(0)[0][:20]).save(tmp_path / "cut-off.png")
    with pytest.raises(BadExample, match=r"cut-off\.png"):
        fine_tune(segmenter, [Example(tmp_path / "cut-off.png", examples[0].mask, "a disc", "g")], SHORT)
