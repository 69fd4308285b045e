"""It learns, follows its seed, keeps the best weights, and says clearly why it stopped."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from model import (
    BadExample,
    Example,
    NoExamples,
    NonFiniteWeights,
    Progress,
    TrainingDiverged,
    evaluate,
    fine_tune,
    validation,
)
from model.batches import TrainingSet, set_aside
from model.data import read_image
from model.metrics import dice
from model.network import Network
from model.optimiser import adam, warmup_cosine
from model.validation import interval
from tests.model.conftest import disc
from tests.model.runs import SHORT, VALIDATED, same, small, validate_often, weights


@pytest.fixture(scope="module")
def start():
    return small()


def heard(start, examples, config, **options):
    """The segmenter that comes out, and all that was reported on the way."""
    seen: list[Progress] = []
    return fine_tune(start, examples, config, on_progress=seen.append, **options), seen


def test_it_learns_four_pictures_by_heart(start, examples):
    config = dataclasses.replace(SHORT, max_steps=80, augmentation="none")
    before = evaluate(start, examples[:4])
    after = evaluate(fine_tune(start, examples[:4], config), examples[:4])
    assert after.dice > max(0.9, before.dice + 0.2)


def test_the_same_seed_gives_the_same_weights_and_the_start_stays(start, examples):
    before = {name: tensor.clone() for name, tensor in weights(start).items()}
    torch.manual_seed(1)
    one = weights(fine_tune(start, examples, SHORT))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(one, weights(fine_tune(start, examples, SHORT)))
    assert torch.equal(state, torch.get_rng_state())
    assert not same(one, weights(fine_tune(start, examples, dataclasses.replace(SHORT, seed=1))))
    assert not same(one, before)
    assert same(before, weights(start)) and not start.network.training


def test_progress_counts_steps_and_epochs(start, examples):
    _, seen = heard(start, examples, SHORT)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.epoch for p in seen] == [0, 0, 1, 1, 2, 2]
    assert all(np.isfinite(p.loss) and p.max_steps == 6 for p in seen)
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(seen))
    assert seen[-1].eta_seconds == 0 and seen[2].eta_seconds == pytest.approx(seen[2].seconds)


@pytest.mark.parametrize(("max_steps", "epochs", "steps"), [(None, 2, 4), (3, 2, 3), (5, 100, 5)])
def test_a_run_ends_after_its_steps_or_its_epochs(start, examples, max_steps, epochs, steps):
    _, seen = heard(start, examples, dataclasses.replace(SHORT, max_steps=max_steps, epochs=epochs))
    assert len(seen) == steps and {p.max_steps for p in seen} == {steps}


def test_a_run_ends_when_its_time_is_over(start, examples):
    now = iter(range(100))
    config = dataclasses.replace(SHORT, max_steps=1000, time_limit_seconds=5.0)
    _, seen = heard(start, examples, config, clock=lambda: float(next(now)))
    assert len(seen) == 5
    assert seen[0].eta_seconds == pytest.approx(4)


def test_one_example_is_enough(start, examples):
    fine_tune(start, examples[:1], dataclasses.replace(SHORT, max_steps=2))


# ------------------------------------------------------------------------------------------------------ validation


@pytest.fixture
def often(monkeypatch):
    validate_often(monkeypatch)


def fake_dice(monkeypatch, values):
    told = iter(values)
    monkeypatch.setattr(validation, "mean_dice", lambda *_: next(told))


CONSTANT = dataclasses.replace(SHORT, max_steps=4, rate_schedule="epoch_cosine", final_rate_share=1.0)


@pytest.mark.usefixtures("often")
def test_the_best_weights_are_those_of_the_step_that_validated_best(start, examples, monkeypatch):
    fake_dice(monkeypatch, [0.4, 0.6, 0.6, 0.1])
    best, seen = heard(start, examples[:4], CONSTANT, validation=examples[4:])
    assert [p.validation_dice for p in seen] == [0.4, 0.6, 0.6, 0.1]
    two_steps = fine_tune(start, examples[:4], dataclasses.replace(CONSTANT, max_steps=2))
    assert same(weights(best), weights(two_steps))


@pytest.mark.usefixtures("often")
def test_the_last_weights_are_kept_when_asked_for(start, examples, monkeypatch):
    fake_dice(monkeypatch, [0.4, 0.6, 0.6, 0.1])
    config = dataclasses.replace(CONSTANT, keep="last")
    last = fine_tune(start, examples[:4], config, validation=examples[4:])
    assert same(weights(last), weights(fine_tune(start, examples[:4], config)))


@pytest.mark.usefixtures("often")
def test_a_run_ends_early_when_nothing_gets_better(start, examples, monkeypatch):
    fake_dice(monkeypatch, [0.4, 0.6, 0.6, 0.5, 0.7])
    config = dataclasses.replace(CONSTANT, max_steps=20, patience=2)
    best, seen = heard(start, examples[:4], config, validation=examples[4:])
    assert len(seen) == 4
    assert same(weights(best), weights(fine_tune(start, examples[:4], dataclasses.replace(CONSTANT, max_steps=2))))


@pytest.mark.parametrize("n_draws", [0, 3])
def test_validation_is_dice_in_the_model_frame(start, examples, n_draws):
    config = dataclasses.replace(SHORT, validation_draws=n_draws)
    data = TrainingSet.load(examples, start.config)
    value = validation.mean_dice(start, data, config, 0, 4)
    again = validation.mean_dice(start, data, config, 0, 4)
    mean_path = []
    for example, truth in zip(examples, data.masks, strict=True):
        answer = start.segment(read_image(example.image), example.prompt, n_draws=0)
        mean_path.append(dice(answer.draws[0] >= 0.5, truth))
    assert value == again
    assert (value == pytest.approx(np.mean(mean_path), abs=1e-6)) == (n_draws == 0)


def test_validation_takes_little_of_the_time_and_counts_only_images():
    for n_training, n_validation, batch_size in ((16, 4, 8), (100, 400, 8), (5000, 600, 24), (8, 2, 8)):
        config = dataclasses.replace(SHORT, batch_size=batch_size)
        steps = interval(n_training, n_validation, config)
        assert steps >= max(10, n_training / batch_size)
        looked_at, learnt_from = validation.COST * n_validation, steps * batch_size
        assert looked_at / (looked_at + learnt_from) <= validation.TIME_SHARE


def test_examples_set_aside_choose_the_weights_and_teach_nothing(start, examples):
    learnt, aside = set_aside(examples, VALIDATED)
    assert len(aside) >= 3
    own, seen = heard(start, examples, VALIDATED)
    given = fine_tune(start, learnt, VALIDATED, validation=aside)
    assert same(weights(own), weights(given)) and seen[-1].validation_dice is not None


# ---------------------------------------------------------------------------------------------------- learning rate


def test_the_learning_rate_rises_and_falls():
    rates = [warmup_cosine(step / 100, 0.1, 0.01) for step in range(101)]
    assert np.argmax(rates) == 10 and max(rates) == pytest.approx(1)
    assert rates[0] == rates[100] == pytest.approx(0.01)
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()
    assert warmup_cosine(3.0, 0.1, 0.01) == pytest.approx(0.01)
    assert warmup_cosine(0.0, 0.0, 0.01) == 1


def rates_of(start, examples, config, monkeypatch):
    """The learning rate of every step."""
    used = []
    step = torch.optim.AdamW.step

    def listen(self):
        used.append({group["lr"] for group in self.param_groups})
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", listen)
    fine_tune(start, examples, config)
    assert all(len(rates) == 1 for rates in used)
    return [rate for rates in used for rate in rates]


def test_a_cosine_by_epochs_is_that_of_pytorch(start, examples, monkeypatch):
    config = dataclasses.replace(
        SHORT, max_steps=None, epochs=4, learning_rate=3e-4, rate_schedule="epoch_cosine", final_rate_share=1 / 3
    )
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 4, eta_min=1e-4)
    expected = []
    for _ in range(4):
        expected += [schedule.get_last_lr()[0]] * 2
        reference.step()
        schedule.step()
    assert rates_of(start, examples, config, monkeypatch) == pytest.approx(expected, rel=1e-12)


def test_without_decay_the_optimiser_is_plain_adam():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    adams = adam([ours], dataclasses.replace(SHORT, weight_decay=0.0)), torch.optim.Adam([theirs], lr=3e-4)
    for _ in range(5):
        ours.grad = torch.randn(3, 4, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimiser in adams:
            optimiser.param_groups[0]["lr"] = 3e-4
            optimiser.step()
    assert torch.equal(ours, theirs)


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_divergence_is_named_with_its_cure(start, examples, monkeypatch):
    forward = Network.forward

    def explode(self, *inputs, **named):
        output = forward(self, *inputs, **named)
        return dataclasses.replace(output, logits=output.logits * float("inf"))

    monkeypatch.setattr(Network, "forward", explode)
    with pytest.raises(TrainingDiverged, match=r"step 1 .*learning rate below 0\.002"):
        fine_tune(start, examples, SHORT)
    assert not start.network.training


@pytest.mark.usefixtures("often")
def test_weights_that_stopped_being_finite_are_never_the_best(start, examples, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: self.param_groups[0]["params"][0].data.fill_(torch.inf))
    fake_dice(monkeypatch, [0.9] * 9)
    with pytest.raises(TrainingDiverged, match=r"after step 1 .*lower learning rate"):
        fine_tune(start, examples[:4], CONSTANT, validation=examples[4:])


def test_weights_that_are_not_finite_are_refused_before_the_first_step(examples):
    broken = small()
    with torch.no_grad():
        broken.network.get_parameter("mask_head.0.bias")[3] = float("nan")
    with pytest.raises(NonFiniteWeights, match=r"mask_head\.0\.bias .*another checkpoint"):
        fine_tune(broken, examples, SHORT)


def test_nothing_to_train_on_and_bad_examples(start, tmp_path, examples):
    with pytest.raises(NoExamples):
        fine_tune(start, [], SHORT)
    Image.fromarray(disc(0)[0][:20]).save(tmp_path / "cut-off.png")
    with pytest.raises(BadExample, match=r"cut-off\.png"):
        fine_tune(start, [Example(tmp_path / "cut-off.png", examples[0].mask, "a disc", "g")], SHORT)
