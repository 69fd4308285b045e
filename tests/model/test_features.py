"""What is kept of an image answers for it: any prompt, later, as if the image itself were asked."""

import dataclasses

import numpy as np
import pytest

from model import BadInput, ModelConfig, PromptTooLong, Segmenter, Source, encode, segment_features
from model.backbones import RANDOM
from tests.model.conftest import disc
from tests.model.test_segmenter import PROMPTS, assert_same, running


@pytest.fixture(scope="module", params=["as published", "first block", "no adapter", "letterboxed"])
def one(request, segmenter):
    small = ModelConfig(image_size_px=64)
    changed = {
        "first block": dataclasses.replace(small, adapter_layers=(0, 2)),
        "no adapter": dataclasses.replace(small, adapter_layers=()),
        "letterboxed": dataclasses.replace(small, fit="letterbox"),
    }.get(request.param)
    return Segmenter.create(changed, seed=1, source=Source(RANDOM)) if changed else segmenter


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_answer_what_the_image_answers(one, precision):
    one = running(one, precision=precision, temperature=1.7)
    image, _ = disc(0, 60, 100)
    features = encode(one, image)
    for prompts in (PROMPTS, {"disc": "a bright disc"}):
        found = segment_features(one, features, prompts)
        assert list(found) == list(prompts)
        for label, prompt in prompts.items():
            # In 16 bits a row more in a batch may change the last of eight bits of a number.
            alone = one.segment(image, prompt, n_draws=0)
            assert_same(found[label], alone, atol=2e-5 if precision == "fp32" else 0.02)
            assert found[label].draws.shape == alone.draws.shape


def test_a_second_question_does_not_look_at_the_image_again(segmenter, monkeypatch):
    features = encode(segmenter, disc(0)[0])
    expected = segment_features(segmenter, features, PROMPTS)
    monkeypatch.setattr(segmenter.network, "look", lambda _: pytest.fail("looked again"))
    again = segment_features(segmenter, features, PROMPTS)
    for label in PROMPTS:
        np.testing.assert_array_equal(again[label].probability, expected[label].probability)


def test_features_tell_images_apart_and_what_they_weigh(segmenter):
    first, second = (encode(segmenter, disc(seed)[0]) for seed in (0, 1))
    assert np.abs((first.seen.tokens - second.seen.tokens).numpy()).max() > 0.01
    assert first.nbytes == second.nbytes > 4 * first.seen.tokens.numel()


def test_bad_questions_are_named(segmenter):
    with pytest.raises(BadInput, match="uint8"):
        encode(segmenter, np.zeros((4, 4)))  # type: ignore[arg-type]
    features = encode(segmenter, disc(0)[0])
    for prompts in ({}, {"disc": " "}):
        with pytest.raises(BadInput, match="prompt"):
            segment_features(segmenter, features, prompts)
    with pytest.raises(PromptTooLong):
        segment_features(segmenter, features, {"disc": "left " * 200})
