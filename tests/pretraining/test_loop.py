"""The loop repeats itself to the bit, learns, keeps the mean of its weights, and its card tells what it saw."""

import itertools
import json

import numpy as np
import pytest
import torch

from model import ModelConfig, Segmenter, Source
from model.checkpoints import describe
from pretraining import __main__ as command
from pretraining.card import card
from pretraining.generator import SHARES, scene
from pretraining.loop import Plan, Reservoir, pretrain

SMALL = Plan(steps=4, batch_size=4, fresh=2, reservoir=8)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start():
    return Segmenter.create(ModelConfig(image_size_px=32), seed=5, source=Source(weights="random"))


def weights(segmenter):
    return torch.cat([p.detach().flatten() for p in segmenter.network.parameters()])


def test_the_same_plan_gives_the_same_weights_and_leaves_the_start_alone(start):
    before = weights(start).clone()
    ends = []
    for plan in (SMALL, SMALL, Plan(**{**vars(SMALL), "seed": 1})):
        losses = []
        for _, loss, mean in pretrain(start, plan):  # noqa: B007 (the last is what counts)
            losses.append(loss)
        ends.append((losses, weights(mean())))
    assert ends[0][0] == ends[1][0] and torch.equal(ends[0][1], ends[1][1])
    assert ends[0][0] != ends[2][0]
    assert torch.equal(weights(start), before) and not torch.equal(ends[0][1], before)


def test_what_is_kept_is_a_mean_over_steps(start):
    """With a decay that forgets at once it is the last weights; with one that never does, the mean of all of them."""
    last, mean = (
        [weights(kept()) for _, _, kept in pretrain(start, Plan(**{**vars(SMALL), "mean_decay": decay}))]
        for decay in (0.0, 1.0)
    )
    assert torch.allclose(mean[-1], torch.stack(last).mean(0), atol=1e-6)
    assert not torch.allclose(mean[-1], last[-1], atol=1e-6)


def test_a_batch_holds_the_newest_scenes_and_older_ones_still_kept():
    reservoir = Reservoir(SMALL, 32)
    pictures = {scene(SMALL.seed, p, 32)[0].image.tobytes(): p for p in range(SMALL.n_scenes)}
    for step in range(1, SMALL.steps + 1):
        images, masks, prompts = reservoir.batch(step)
        positions = [pictures[image.tobytes()] for image in images]
        newest = SMALL.batch_size + SMALL.fresh * step - 1
        assert positions[:2] == [newest - 1, newest]
        assert all(newest - SMALL.reservoir < p <= newest for p in positions)
        for position, mask, prompt in zip(positions, masks, prompts, strict=True):
            asked = {query.prompt: query.mask for query in scene(SMALL.seed, position, 32)[1]}
            assert np.array_equal(asked[prompt], mask)
    assert newest == SMALL.n_scenes - 1


def test_the_loss_falls(start):
    plan = Plan(steps=24, batch_size=6, fresh=1, reservoir=6)
    losses = [loss for _, loss, _ in itertools.islice(pretrain(start, plan), 24)]
    assert np.mean(losses[-6:]) < 0.95 * np.mean(losses[:6])


def test_the_command_writes_weights_that_load_and_a_card_that_fits(tmp_path, capsys):
    file = tmp_path / "made" / "tiny.safetensors"
    command.main([str(file), "--steps", "2", "--batch-size", "2", "--fresh", "1", "--report-every", "1"])
    loaded = Segmenter.load(file)
    assert loaded.config.backbone == "tiny" and loaded.size_px == 96
    beside = json.loads(file.with_suffix(".json").read_text())
    told = describe(file)
    assert told["card"] == {key: beside[key] for key in told["card"]}
    assert beside["digest"] == told["digest"] and beside["sha256"] == told["sha256"]
    assert "step 2/2" in capsys.readouterr().out


def test_the_card_counts_what_was_seen():
    told = card(SMALL, 3)
    assert told["saw"]["scenes"] == SMALL.batch_size + 3 * SMALL.fresh and told["saw"]["steps"] == 3
    assert sum(told["saw"]["shares"].values()) == pytest.approx(1) and len(told["saw"]["shares"]) == len(SHARES)
    assert "--seed 0" in told["command"] and "--steps 4" in told["command"]
    json.dumps(told, allow_nan=False)
