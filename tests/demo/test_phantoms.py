"""The phantoms are what their docstring says: deterministic, speckled, with a dark lesion of bounded size."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, label

from demo.phantoms import _speckle, main, phantom, write_dataset
from simulation.dataset import read_pairs

SEEDS = range(60)


def test_the_same_seed_gives_the_same_frame_and_another_another() -> None:
    (image, mask), (again, mask_again), (other, _) = phantom(3), phantom(3), phantom(4)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (image != other).mean() > 0.5


def test_every_frame_shows_one_dark_lesion_of_2_to_20_percent() -> None:
    for seed in SEEDS:
        image, mask = phantom(seed)
        assert image.shape == mask.shape == (256, 256)
        assert (image.dtype, mask.dtype) == (np.uint8, bool)
        assert 0.02 <= mask.mean() <= 0.20, seed
        assert label(mask)[1] == 1, seed
        ring = binary_dilation(mask, iterations=12) & ~binary_dilation(mask, iterations=3)
        assert image[mask].mean() < image[ring].mean() - 5, seed


def test_frames_fill_the_range_of_grey_without_clipping() -> None:
    images = np.stack([phantom(seed)[0] for seed in SEEDS])
    assert ((images == 0) | (images == 255)).mean() < 0.01
    assert images.std() > 25


def test_speckle_is_rayleigh_and_correlated_across_the_beam() -> None:
    amplitude = np.concatenate([_speckle((1.0, 2.0), np.random.default_rng(seed)) for seed in range(8)])
    assert np.mean(amplitude**2) == pytest.approx(1, abs=0.02)
    assert np.mean(amplitude) == pytest.approx(np.sqrt(np.pi) / 2, abs=0.01), "Rayleigh with mean square 1"
    across = np.corrcoef(amplitude[:, :-2].ravel(), amplitude[:, 2:].ravel())[0, 1]
    along = np.corrcoef(amplitude[:-2].ravel(), amplitude[2:].ravel())[0, 1]
    assert across > along + 0.1


def test_frames_of_one_patient_look_more_alike_than_those_of_others() -> None:
    def depth_profile(seed: int, patient: int) -> np.ndarray:
        image, mask = phantom(seed, patient)
        return np.ma.array(image.astype(float), mask=mask).mean(axis=1).filled(0)

    pairs = [(depth_profile(2 * p, p), depth_profile(2 * p + 1, p)) for p in range(20)]
    within = np.mean([np.abs(a - b).mean() for a, b in pairs])
    between = np.mean([np.abs(a - pairs[(i + 1) % 20][0]).mean() for i, (a, _) in enumerate(pairs)])
    assert within < 0.7 * between


def test_a_dataset_is_a_labelled_folder(tmp_path: Path) -> None:
    pairs = read_pairs(write_dataset(tmp_path, 11, seed=5))
    assert len(pairs) == 11
    groups = [pair.group for pair in pairs]
    assert all(2 <= groups.count(group) <= 3 for group in groups[:-3])
    assert {pair.prompt for pair in pairs} == {"a dark lesion in an ultrasound image"}
    for pair in pairs:
        image, mask = Image.open(pair.image), np.asarray(Image.open(pair.mask))
        assert (image.mode, image.size, mask.shape) == ("L", (256, 256), (256, 256))
        assert set(np.unique(mask)) == {0, 255}


def test_more_frames_extend_fewer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, many = write_dataset(tmp_path / "few", 4, seed=1), tmp_path / "many"
    main([str(many), "--n", "7", "--seed", "1"])
    assert "7 phantoms" in capsys.readouterr().out
    with (few / "pairs.csv").open() as a, (many / "pairs.csv").open() as b:
        assert list(csv.reader(b))[:5] == list(csv.reader(a))
    for path in (few / "images").iterdir():
        assert path.read_bytes() == (many / "images" / path.name).read_bytes()
