"""Laws of inference: ranges, frames, chance, and no image's answer depending on its neighbours."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from model import BadConfig, BadInput, ModelConfig, PromptTooLong, Segmenter, Source
from model.backbones import RANDOM
from model.frames import Placement
from model.network import Output
from model.segmentation import Segmentation
from model.segmenter import clone
from strategies import acquisition
from tests.model.conftest import disc


@pytest.fixture(scope="module")
def letterboxed():
    """As `segmenter`, but images keep their shape."""
    return Segmenter.create(ModelConfig(image_size_px=64, fit="letterbox"), seed=1, source=Source(RANDOM))


def running(segmenter, **how):
    """The same network, run otherwise."""
    return Segmenter(segmenter.config, segmenter.network, **how)


def assert_same(one, other, atol=2e-5):
    for field in ("probability", "draws", "embedding"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=atol)


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
            assert_same(mine, theirs)


def test_probability_is_the_mean_of_the_draws_stretched_to_the_image(segmenter):
    image, _ = disc(0, 64, 64)
    answer = segmenter.segment(image, "a disc", n_draws=4)
    np.testing.assert_allclose(answer.probability, answer.draws.mean(0), atol=1e-6)
    wide = segmenter.segment(np.repeat(image, 3, axis=1), "a disc", n_draws=4)
    middle_columns = wide.probability[:, 1::3]
    np.testing.assert_allclose(middle_columns, wide.draws.mean(0), atol=1e-5)


def test_the_prompt_matters(segmenter):
    image, _ = disc(0)
    one, other = (segmenter.segment(image, prompt, 0).draws for prompt in ("a disc", "left kidney"))
    assert np.abs(one - other).max() > 1e-5


def test_creation_follows_the_seed_alone():
    config = ModelConfig(image_size_px=64)
    torch.manual_seed(1)
    first = Segmenter.create(config, seed=0, source=Source(RANDOM)).network.state_dict()
    state = torch.random.get_rng_state()
    same, other = (Segmenter.create(config, seed, source=Source(RANDOM)).network.state_dict() for seed in (0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_segmenter_knows_its_complete_configuration(segmenter):
    assert None not in dataclasses.astuple(segmenter.config)


@pytest.mark.parametrize(
    ("image", "prompt", "n_draws", "message"),
    [
        (np.zeros((4, 4)), "a disc", 1, "uint8"),
        (np.zeros((4, 4, 4), np.uint8), "a disc", 1, "alpha"),
        ([[0]], "a disc", 1, "list"),
        (np.zeros((4, 4), np.uint8), "  ", 1, "image 0 is blank"),
        (np.zeros((4, 4), np.uint8), None, 1, "None"),
        (np.zeros((4, 4), np.uint8), "a disc", -1, "n_draws"),
        (np.zeros((4, 4), np.uint8), "a disc", 2.0, "n_draws"),
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


def test_a_prompt_beyond_the_context_is_named(segmenter):
    image, _ = disc(0)
    with pytest.raises(PromptTooLong, match=r"left left.*77"):
        segmenter.segment_many([image, image], ["a disc", "left " * 200])


# ------------------------------------------------------------------------------------------------- several labels
PROMPTS = {"disc": "a bright disc", "ground": "everything that is not a disc, all around it", "polyp": "polyp"}


@pytest.mark.parametrize("n_draws", [0, 3])
def test_labels_together_are_what_each_is_alone(segmenter, letterboxed, n_draws):
    images = [disc(seed, 60, 100 - 9 * seed)[0] for seed in range(3)]
    for one in (segmenter, letterboxed):
        found = one.segment_labels(images, PROMPTS, n_draws, seed=4)
        for image, answers in zip(images, found, strict=True):
            assert list(answers) == list(PROMPTS)
            for label, prompt in PROMPTS.items():
                assert_same(answers[label], one.segment(image, prompt, n_draws, seed=4))


def test_every_image_may_have_labels_of_its_own(segmenter):
    images = [disc(seed)[0] for seed in range(3)]
    asked = [{"a": "a disc"}, PROMPTS, {"b": "polyp", "a": "a disc"}]
    found = segmenter.segment_labels(images, asked, 2)
    assert [list(answers) for answers in found] == [list(labels) for labels in asked]
    for image, answers, labels in zip(images, found, asked, strict=True):
        for label in labels:
            assert_same(answers[label], segmenter.segment(image, labels[label], 2))


@pytest.mark.parametrize(("n_draws", "rows_per_pass"), [(0, 32), (5, 32), (5, 15)])
def test_the_image_part_runs_once_for_all_labels(segmenter, monkeypatch, n_draws, rows_per_pass):
    seen = []
    embed = segmenter.network.towers.embed_image

    def watched(images):
        seen.append(len(images))
        return embed(images)

    monkeypatch.setattr(segmenter.network.towers, "embed_image", watched)
    segmenter = running(segmenter, rows_per_pass=rows_per_pass)
    segmenter.segment_labels([disc(seed)[0] for seed in range(4)], PROMPTS, n_draws)
    assert sum(seen) == 4


def test_rows_per_pass_bound_the_work_and_change_no_answer(segmenter, monkeypatch):
    rows = []
    forward = segmenter.network.forward

    def watched(images, tokens, noise=None, n_draws=1, image_of=None):
        rows.append(n_draws * len(tokens))
        return forward(images, tokens, noise, n_draws, image_of)

    monkeypatch.setattr(segmenter.network, "forward", watched)
    images = [disc(seed)[0] for seed in range(3)]
    expected = segmenter.segment_labels(images, PROMPTS, 5, seed=1)
    for limit in (3, 4, 7, 200):
        rows.clear()
        found = running(segmenter, rows_per_pass=limit).segment_labels(images, PROMPTS, 5, seed=1)
        assert max(rows) <= limit and sum(rows) == 5 * 9
        for ours, theirs in zip(found, expected, strict=True):
            for label in PROMPTS:
                assert_same(ours[label], theirs[label])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"disc": "a disc", "polyp": " "}, "polyp is blank"),
        ([{"disc": "a disc"}], "2 images came with prompts for 1"),
        ([{"disc": "a disc"}, {}], "without any prompt"),
    ],
)
def test_bad_labels_are_named_before_any_work(segmenter, monkeypatch, prompts, message):
    monkeypatch.setattr(segmenter.network, "forward", lambda *_: pytest.fail("worked"))
    with pytest.raises(BadInput, match=message):
        segmenter.segment_labels([disc(0)[0], disc(1)[0]], prompts)


# ---------------------------------------------------------------------------------------------------- draws alone
def test_draws_alone_are_those_of_the_answer_and_go_on_from_any(segmenter, letterboxed):
    images = [disc(seed, 50, 90)[0] for seed in range(3)]
    prompts = ["a disc", "polyp"]
    for one in (segmenter, letterboxed):
        whole = [np.stack([one.segment(image, p, 7, seed=2).draws for p in prompts], 1) for image in images]
        for first, n in ((0, 7), (0, 2), (2, 1), (3, 4)):
            found = list(one.draw(((image, prompts) for image in images), n, seed=2, first_draw=first))
            assert len(found) == 3
            for ours, theirs in zip(found, whole, strict=True):
                np.testing.assert_allclose(ours, theirs[first : first + n], atol=2e-5)


def test_draws_fetch_only_a_few_images_at_a_time(segmenter):
    fetched = []

    def pictures():
        for seed in range(100):
            fetched.append(seed)
            yield disc(seed)[0], ["a disc"]

    next(running(segmenter, rows_per_pass=4).draw(pictures(), 2))
    assert len(fetched) <= 3


def test_bad_pictures_are_refused_when_they_come(segmenter):
    for picture in ((np.zeros((4, 4)), ["a disc"]), (disc(0)[0], []), (disc(0)[0], ["a disc", ""])):
        with pytest.raises(BadInput):
            list(segmenter.draw([picture], 1))
    with pytest.raises(BadInput, match="first_draw"):
        list(segmenter.draw([(disc(0)[0], ["a disc"])], 1, first_draw=-1))


# ------------------------------------------------------------------------------------------------ maps of the doubt
def answer_of(draws):
    return Segmentation(draws.mean(0), draws, np.ones(1, np.float32))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_maps_are_those_of_the_strategies(n):
    draws = np.random.default_rng(n).beta(0.3, 0.3, (n, 12, 17)).astype(np.float32)
    answer = answer_of(draws)
    for ours, theirs in (
        (answer.entropy, acquisition.predictive_entropy),
        (answer.expected_entropy, acquisition.expected_entropy),
        (answer.bald, acquisition.bald),
        (answer.variance, acquisition.variance),
    ):
        np.testing.assert_allclose(ours, theirs(draws), atol=1e-12)
        assert ours.shape == (12, 17)


def test_laws_of_the_maps():
    draws = np.random.default_rng(0).beta(0.2, 0.2, (6, 30, 30)).astype(np.float32)
    draws[:, :5] = draws[:1, :5]  # draws that agree
    draws[:, 5:10] = np.float32(np.arange(30) % 2)  # and are sure
    draws[:, 10] = (np.arange(6) % 2)[:, None]  # each sure, and split down the middle
    answer = answer_of(draws)
    np.testing.assert_allclose(answer.bald, answer.entropy - answer.expected_entropy, atol=1e-12)
    for whole in (answer.entropy, answer.expected_entropy, answer.bald):
        assert whole.min() >= 0 and whole.max() <= math.log(2) + 1e-12
    assert answer.variance.min() >= 0 and answer.variance.max() <= 0.25
    np.testing.assert_allclose(answer.bald[:10], 0, atol=1e-12)
    np.testing.assert_allclose(answer.variance[:10], 0, atol=1e-12)
    np.testing.assert_array_equal(answer.entropy[5:10], 0)
    np.testing.assert_allclose(answer.entropy[10], math.log(2))
    np.testing.assert_allclose(answer.bald[10], math.log(2))
    np.testing.assert_allclose(answer.variance[10], 0.25)


def test_one_draw_and_the_mean_path_leave_nothing_to_disagree_on(segmenter):
    for n_draws in (0, 1):
        answer = segmenter.segment(disc(0)[0], "a disc", n_draws)
        assert not answer.bald.any() and not answer.variance.any() and answer.entropy.any()


# ------------------------------------------------------------------------------------------ precision, temperature
def test_bfloat16_is_near_and_answers_in_float32(segmenter):
    image, _ = disc(0)
    exact = segmenter.segment(image, "a disc", 3)
    coarse = running(segmenter, precision="bf16").segment(image, "a disc", 3)
    for field in ("probability", "draws", "embedding"):
        ours, theirs = getattr(coarse, field), getattr(exact, field)
        assert ours.dtype == np.float32 and 0 < np.abs(ours - theirs).max() < 0.05


def test_an_unknown_precision_is_refused(segmenter):
    with pytest.raises(BadConfig, match="fp32 or bf16"):
        running(segmenter, precision="fp16").segment(disc(0)[0], "a disc")


def test_temperature_softens_every_draw_alike(segmenter):
    image, _ = disc(0)
    plain, same, soft, flat = (
        segmenter.with_temperature(t).segment(image, "a disc", 3) if t else segmenter.segment(image, "a disc", 3)
        for t in (None, 1.0, 2.5, 1e9)
    )
    np.testing.assert_array_equal(plain.draws, same.draws)
    np.testing.assert_allclose(flat.draws, 0.5, atol=1e-6)
    np.testing.assert_allclose(flat.probability, 0.5, atol=1e-6)
    odds = np.log(plain.draws / (1 - plain.draws))
    np.testing.assert_allclose(soft.draws, 1 / (1 + np.exp(-odds / 2.5)), atol=1e-5)
    np.testing.assert_array_equal(soft.draws >= 0.5, plain.draws >= 0.5)
    np.testing.assert_array_equal(soft.embedding, plain.embedding)


def test_how_a_segmenter_runs_survives_what_is_made_of_it(segmenter):
    other = running(segmenter, precision="bf16", rows_per_pass=7)
    for made in (other.with_temperature(2.0), clone(other)):
        assert (made.precision, made.rows_per_pass) == ("bf16", 7)


# ------------------------------------------------------------------------------------------------- what towers see
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("statistics", ["backbone", "imagenet"])
def test_towers_see_the_channels_and_statistics_of_the_configuration(segmenter, channels, statistics):
    config = dataclasses.replace(segmenter.config, channels=channels, statistics=statistics)
    red = torch.tensor([0.9, 0.5, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    seen = Segmenter(config, segmenter.network).normalise(red)[0, :, 0, 0]
    towers = segmenter.network.towers
    means, stds = (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if statistics == "imagenet" else (towers.mean, towers.std)
    )
    values = (0.9, 0.5, 0.1) if channels == "rgb" else (0.1, 0.5, 0.9)
    expected = [(v - m) / s for v, m, s in zip(values, means, stds, strict=True)]
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_bgr_of_a_picture_is_rgb_of_its_mirror_in_colour(segmenter):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    swapped = Segmenter(dataclasses.replace(segmenter.config, channels="bgr"), segmenter.network)
    assert_same(swapped.segment(image, "a disc", 2), segmenter.segment(image[..., ::-1], "a disc", 2))


def test_sixteen_bits_answer_as_eight(segmenter):
    image, _ = disc(0, 64, 64)
    fine = image.astype(np.uint16) * 257
    eight, sixteen = segmenter.segment_many([image, fine], ["a disc"] * 2, 2)
    assert_same(eight, sixteen)
    # What a file of 16 bits loses when it is read as 8 is less than a grey level.
    upper = segmenter.segment((fine >> 8).astype(np.uint8), "a disc", 2)
    assert_same(upper, sixteen, atol=0.02)
    faint = (fine // 256 + 30_000).astype(np.uint16)
    flat = np.full_like(faint, 30_000)
    one, other = segmenter.segment_many([faint, flat], ["a disc"] * 2, 0)
    assert np.abs(one.draws - other.draws).max() > 1e-6


@pytest.mark.parametrize("shape", [(64, 64), (17, 300), (300, 17, 3), (1, 1)])
def test_a_letterboxed_image_is_answered_for_its_own_pixels_only(letterboxed, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    answer = letterboxed.segment(image, "a disc", 2)
    place = Placement.of(shape, letterboxed.config)
    assert answer.probability.shape == shape[:2] and answer.draws.shape == (2, place.rows, place.columns)
    assert answer.entropy.shape == (place.rows, place.columns)


def test_what_the_network_says_of_padding_is_in_no_answer(letterboxed, monkeypatch):
    """A network that is sure of the image and raves about the padding."""
    image = np.zeros((20, 64), np.uint8)
    inside = torch.from_numpy(Placement.of(image.shape, letterboxed.config).covered())
    covered = inside.view(8, 8, 8, 8).float().mean((1, 3)).flatten()

    def forward(images, tokens, noise, n_draws, image_of):
        logits = torch.where(inside, -20.0, 20.0).expand(n_draws, 64, 64)
        patches = torch.stack([covered, (covered == 0).float()], -1)
        return Output(logits, patches.expand(n_draws, 64, 2), torch.zeros(n_draws, 2))

    monkeypatch.setattr(letterboxed.network, "forward", forward)
    found = letterboxed.segment(image, "a disc", 2)
    assert found.draws.shape == (2, 20, 64) and found.draws.max() < 1e-6 and found.probability.max() < 1e-6
    np.testing.assert_allclose(found.embedding, [1, 0], atol=1e-6)
