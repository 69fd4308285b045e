"""`tiny`: word vectors that follow from a formula; packaged weights that are what their card says and worth having."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import ModelConfig, Segmenter, Source, checkpoints
from model.backbones import pretrained_tiny
from model.backbones.tiny import WORD_STD, word_vectors
from tests.model.conftest import PROMPT, disc

RANDOM = Source(weights="random")
WORDS_SHA256 = "4107aa1e53dd06fa5e0f8f3a11e784f32130c36600d39cdf797555192d0b5977"
POSITIONS = "towers.clip.visual.positional_embedding"


def test_word_vectors_are_the_same_for_ever():
    vectors = word_vectors(49408, 64)
    assert hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest() == WORDS_SHA256
    assert abs(float(vectors.mean())) < 1e-4 and float(vectors.std()) == pytest.approx(WORD_STD, rel=1e-3)
    assert np.abs(np.corrcoef(vectors[:50]) - np.eye(50)).max() < 0.6


def test_word_vectors_are_in_every_network_and_in_no_checkpoint():
    one, other = (Segmenter.create(ModelConfig(image_size_px=32), seed=seed, source=RANDOM) for seed in (0, 1))
    vectors = [dict(segmenter.network.named_buffers())["towers.words"] for segmenter in (one, other)]
    assert torch.equal(*vectors)
    assert not any("words" in name or "token_embedding" in name for name in one.network.own_parts())
    assert sum(tensor.numel() for tensor in one.network.own_parts().values()) < 1_000_000


def test_random_weights_are_a_function_of_the_seed():
    one, same, other = (
        Segmenter.create(ModelConfig(image_size_px=32), seed=seed, source=RANDOM).network.own_parts()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_packaged_file_is_small_and_what_its_card_says():
    assert pretrained_tiny.FILE.stat().st_size <= 10e6
    told = checkpoints.describe(pretrained_tiny.FILE)
    card = json.loads(pretrained_tiny.FILE.with_suffix(".json").read_text())
    assert card["digest"] == told["digest"] and card["sha256"] == told["sha256"]
    assert {key: card[key] for key in told["card"]} == told["card"]
    for key in ("saw", "never_saw", "command", "licence"):
        assert card[key]
    tensors, _ = checkpoints.read(pretrained_tiny.FILE, checkpoints.CHECKPOINT_FORMAT)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_the_default_network_starts_from_the_packaged_weights_whatever_the_seed():
    tensors, _ = checkpoints.read(pretrained_tiny.FILE, checkpoints.CHECKPOINT_FORMAT)
    for seed in (0, 1):
        parts = Segmenter.create(ModelConfig(), seed=seed).network.own_parts()
        assert parts.keys() == tensors.keys()
        assert all(torch.equal(parts[name], tensors[name]) for name in parts)


def test_another_image_size_changes_the_positions_alone():
    usual = Segmenter.create(ModelConfig()).network.own_parts()
    smaller = Segmenter.create(ModelConfig(image_size_px=64)).network.own_parts()
    assert smaller[POSITIONS].shape == (1 + 8 * 8, 96)
    assert all(torch.equal(usual[name], smaller[name]) for name in usual if name != POSITIONS)


def test_other_adapters_find_no_packaged_weights():
    complete = Segmenter.create(ModelConfig()).config
    assert pretrained_tiny.packaged_state(complete) is not None
    for other in (replace(complete, adapter_dim=32), replace(complete, adapter_layers=(1,))):
        assert pretrained_tiny.packaged_state(other) is None
        first, second = (Segmenter.create(other, seed=seed).network.own_parts() for seed in (0, 1))
        assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("grid", [4, 8, 16, 28])
def test_resized_positions_keep_the_class_token_and_where_things_are(grid):
    down, right = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12), indexing="ij")
    patches = torch.stack([down.flatten(), right.flatten(), torch.ones(144)], 1)
    positions = torch.cat([torch.tensor([[7.0, 8.0, 9.0]]), patches])
    resized = pretrained_tiny.resized_positions(positions, grid)
    assert resized.shape == (1 + grid * grid, 3) and torch.equal(resized[0], positions[0])
    maps = resized[1:].reshape(grid, grid, 3)
    assert torch.allclose(maps[..., 2], torch.ones(grid, grid), atol=1e-5)
    assert (maps[1:, :, 0] > maps[:-1, :, 0]).all() and (maps[:, 1:, 1] > maps[:, :-1, 1]).all()
    assert torch.allclose(maps[..., 0], maps[..., 1].T, atol=1e-5)


def test_positions_of_the_same_size_stay_as_they_are():
    positions = torch.randn(1 + 12 * 12, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pretrained_tiny.resized_positions(positions, 12), positions, atol=1e-5)


def test_the_prompt_decides_what_is_found():
    """Untaught: of a bright and a dark disc, each is found better by its own word than by the other's."""
    rows, columns = np.mgrid[:96, :96]
    chance = np.random.default_rng(0)
    right = {"brightest": 0, "darkest": 0}
    segmenter = Segmenter.create(ModelConfig())
    for _ in range(12):
        discs = [np.hypot(rows - chance.uniform(25, 70), columns - c) < 13 for c in chance.permutation([25, 70])]
        grey = 120 + 80 * discs[0] - 80 * discs[1] + chance.normal(0, 6, (96, 96))
        image = np.clip(grey, 0, 255).astype(np.uint8)
        for word, own, other in (("brightest", discs[0], discs[1]), ("darkest", discs[1], discs[0])):
            shown = segmenter.segment(image, f"the {word} structure", n_draws=0).probability
            right[word] += shown[own].mean() > shown[other].mean()
    assert min(right.values()) >= 9


def test_an_embedding_is_a_unit_vector_of_the_joint_space():
    embedding = Segmenter.create(ModelConfig()).segment(disc(0)[0], PROMPT, n_draws=2).embedding
    assert embedding.shape == (32,)
    assert float(F.normalize(torch.from_numpy(embedding), dim=0) @ torch.from_numpy(embedding)) == pytest.approx(1)
