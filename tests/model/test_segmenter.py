"""Laws of inference: ranges, frames, chance, and no image's answer depending on its neighbours."""

import dataclasses

import numpy as np
import pytest
import torch

from model import BadInput, ModelConfig, Segmenter
from model.segmenter import to_model_frame
from tests.model.conftest import disc


@pytest.mark.parametrize("shape", [(64, 64), (17, 300), (300, 17, 3), (1, 1), (33, 50, 1)])
@pytest.mark.parametrize("n_draws", [0, 1, 3])
def test_any_image_gets_probabilities_in_its_own_frame(segmenter, shape, n_draws):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    answer = segmenter.segment(image, "a disc", n_draws=n_draws)
    assert answer.probability.shape == shape[:2] and answer.probability.dtype == np.float32
    assert answer.draws.shape == (max(1, n_draws), 64, 64) and answer.draws.dtype == np.float32
    for probabilities in (answer.probability, answer.draws):
        assert probabilities.min() >= 0 and probabilities.max() <= 1
    assert answer.embedding.dtype == np.float32 and np.linalg.norm(answer.embedding) == pytest.approx(1, abs=1e-5)


def test_grey_and_its_three_equal_channels_are_one_image(segmenter):
    image, _ = disc(0)
    grey, colour = segmenter.segment(image, "a disc"), segmenter.segment(np.stack([image] * 3, -1), "a disc")
    np.testing.assert_array_equal(grey.probability, colour.probability)


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(segmenter):
    image, _ = disc(0)
    torch.manual_seed(7)
    first = segmenter.segment(image, "a disc", seed=3)
    torch.manual_seed(8)
    np.testing.assert_array_equal(first.draws, segmenter.segment(image, "a disc", seed=3).draws)
    assert np.abs(first.draws - segmenter.segment(image, "a disc", seed=4).draws).max() > 1e-4


def test_draws_differ_and_more_draws_extend_fewer(segmenter):
    image, _ = disc(0)
    few, many = (segmenter.segment(image, "a disc", n_draws=n, seed=5).draws for n in (2, 5))
    np.testing.assert_allclose(few, many[:2], atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 1e-4


def test_the_mean_path_knows_no_chance(segmenter):
    image, _ = disc(0)
    one, other = (segmenter.segment(image, "a disc", n_draws=0, seed=seed).draws for seed in (0, 1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_draws", [0, 3])
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(segmenter, n_draws):
    images = [disc(seed, 60 + 9 * seed, 100 - 5 * seed)[0] for seed in range(5)]
    prompts = ["a disc", "a much longer description of some disc", "a disc", "polyp", "a disc"]
    together = segmenter.segment_many(images, prompts, n_draws, seed=2)
    backwards = segmenter.segment_many(images[::-1], prompts[::-1], n_draws, seed=2)[::-1]
    alone = [segmenter.segment(image, prompt, n_draws, seed=2) for image, prompt in zip(images, prompts, strict=True)]
    for others in (backwards, alone):
        for mine, theirs in zip(together, others, strict=True):
            np.testing.assert_allclose(mine.probability, theirs.probability, atol=2e-5)
            np.testing.assert_allclose(mine.draws, theirs.draws, atol=2e-5)
            np.testing.assert_allclose(mine.embedding, theirs.embedding, atol=2e-5)


def test_probability_is_the_mean_of_the_draws_stretched_to_the_image(segmenter):
    image, _ = disc(0, 64, 64)
    answer = segmenter.segment(image, "a disc", n_draws=4)
    np.testing.assert_allclose(answer.probability, answer.draws.mean(0), atol=1e-6)
    wide = segmenter.segment(np.repeat(image, 3, axis=1), "a disc", n_draws=4)
    middle_columns = wide.probability[:, 1::3]
    np.testing.assert_allclose(middle_columns, wide.draws.mean(0), atol=1e-5)


def test_squashing_keeps_things_in_their_place():
    picture = np.zeros((40, 200), np.uint8)
    picture[10:20, 100:150] = 255
    squashed = to_model_frame(picture, 80)[..., 0] >= 128
    assert squashed[20:40, 40:60].all() and squashed.sum() == 400


def test_the_prompt_matters(segmenter):
    image, _ = disc(0)
    one, other = (segmenter.segment(image, prompt, 0).draws for prompt in ("a disc", "left kidney"))
    assert np.abs(one - other).max() > 1e-5


def test_creation_follows_the_seed_alone():
    config = ModelConfig(image_size_px=64)
    torch.manual_seed(1)
    first = Segmenter.create(config, seed=0).network.state_dict()
    state = torch.random.get_rng_state()
    same, other = (Segmenter.create(config, seed=seed).network.state_dict() for seed in (0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_segmenter_knows_its_complete_configuration(segmenter):
    assert None not in dataclasses.astuple(segmenter.config)


@pytest.mark.parametrize(
    ("image", "prompt", "n_draws", "message"),
    [
        (np.zeros((4, 4)), "a disc", 1, "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "a disc", 1, r"\(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), "a disc", 1, "at least one pixel"),
        ([[0]], "a disc", 1, "list"),
        (np.zeros((4, 4), np.uint8), "  ", 1, "blank"),
        (np.zeros((4, 4), np.uint8), "a disc", -1, "n_draws"),
    ],
)
def test_bad_input_is_named(segmenter, image, prompt, n_draws, message):
    with pytest.raises(BadInput, match=message):
        segmenter.segment(image, prompt, n_draws)


def test_each_image_needs_its_prompt(segmenter):
    with pytest.raises(BadInput, match="one prompt per image"):
        segmenter.segment_many([np.zeros((4, 4), np.uint8)], ["a", "b"], 1, 0)


def test_nothing_in_gives_nothing_out(segmenter):
    assert segmenter.segment_many([], [], 1, 0) == []
