"""Scenes follow from seed and position, things show as they claim, and no file is ever read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pretraining.fields import blob, curves, dome, grid, noise
from pretraining.generator import SHARES, scene
from pretraining.scenes import MIN_AREA_SHARE, seen

ROOT = Path(__file__).resolve().parents[2]
SIZE = 48


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_scene_follows_from_seed_and_position_alone():
    first = [scene(3, position, SIZE) for position in range(12)]
    again = [scene(3, position, SIZE) for position in reversed(range(12))][::-1]
    for (image, asked), (same_image, same_asked) in zip(first, again, strict=True):
        assert np.array_equal(image.image, same_image.image)
        assert [query.prompt for query in asked] == [query.prompt for query in same_asked]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(asked, same_asked, strict=True))
    pictures = {made.image.tobytes() for made, _ in first} | {scene(4, p, SIZE)[0].image.tobytes() for p in range(12)}
    assert len(pictures) == 24


@pytest.mark.parametrize("maker", SHARES, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("size", [48, 96])
def test_every_sort_of_scene_is_an_image_with_things_in_it(maker, size):
    made = [maker(rng(seed), size) for seed in range(8)]
    assert all(m.image.shape == (size, size, 3) and m.image.dtype == np.uint8 for m in made)
    assert all(m.image.std() > 2 for m in made), "nothing is to be seen"
    things = [thing for m in made for thing in m.things]
    assert len(things) >= 8 * 0.6
    assert all(thing.mask.shape == (size, size) and thing.mask.mean() >= MIN_AREA_SHARE for thing in things)


@pytest.mark.parametrize("maker", SHARES, ids=lambda maker: maker.__name__)
def test_outlines_of_masks_lie_where_the_image_changes(maker):
    """Not in every scene (some are meant to be hard), but on the whole."""
    on_outlines, anywhere = [], []
    for seed in range(12):
        made = maker(rng([9, seed]), 96)
        change = ndimage.gaussian_gradient_magnitude(made.image.mean(2), 1.0)
        for thing in made.things:
            outline = ndimage.binary_dilation(thing.mask) ^ ndimage.binary_erosion(thing.mask, border_value=1)
            on_outlines.append(change[outline].mean())
            anywhere.append(change.mean())
    assert np.mean(on_outlines) > 1.3 * np.mean(anywhere)


def test_drawing_and_asking_reads_no_file_and_needs_no_image_library():
    code = (
        "import sys, builtins, io\n"
        "from pretraining.generator import scene\n"
        "def closed(*a, **k): raise AssertionError(a)\n"
        "builtins.open = io.open = closed\n"
        "[scene(0, position, 48) for position in range(30)]\n"
        "assert not {'PIL', 'torch', 'model', 'imageio', 'cv2'} & set(sys.modules), 'an image library was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_front_hides_the_back_and_what_hardly_shows_is_left_out():
    everywhere = np.ones((40, 40), bool)
    back, front, speck = (np.zeros((40, 40), bool) for _ in range(3))
    back[5:25, 5:25], front[20:30, 20:30], speck[0, 0] = True, True, True
    things = seen([("back", back), ("front", front), ("speck", speck)], everywhere)
    assert [thing.kind for thing in things] == ["back", "front"]
    assert np.array_equal(things[1].mask, front) and np.array_equal(things[0].mask, back & ~front)
    covered = seen([("back", front), ("front", back | front)], everywhere)
    assert [thing.kind for thing in covered] == ["front"]
    cut = seen([("back", back)], ~front)
    assert np.array_equal(cut[0].mask, back & ~front)


def test_noise_is_normal_and_as_smooth_as_asked():
    field = noise(rng(), 128, 0.03)
    assert abs(field.mean()) < 1e-9 and field.std() == pytest.approx(1)

    def likeness(field, lag):
        return float((field * np.roll(field, lag, 1)).mean())

    # The correlation of white noise smoothed by a Gaussian of width s is exp(-lag² / 4 s²).
    many = [noise(rng(seed), 128, 0.03) for seed in range(20)]
    assert np.mean([likeness(f, 4) for f in many]) == pytest.approx(np.exp(-(4**2) / (4 * (0.03 * 128) ** 2)), abs=0.05)
    wide = [noise(rng(seed), 128, 0.01, 0.08) for seed in range(20)]
    assert np.mean([likeness(f, 4) for f in wide]) > np.mean([likeness(f.T, 4) for f in wide]) + 0.3


def test_a_blob_without_roughness_is_an_ellipse_of_the_area_asked_for():
    inward = blob(rng(), 200, (0.5, 0.4), 0.2, elongation=2, angle=0.0, roughness=0)
    inside = inward > 0
    assert inside.mean() == pytest.approx(np.pi * 0.2**2, rel=0.02)
    rows, columns = grid(200)
    assert (rows[inside].mean(), columns[inside].mean()) == pytest.approx((0.5, 0.4), abs=0.01)
    assert columns[inside].std() / rows[inside].std() == pytest.approx(2, rel=0.03)
    assert inward.max() <= 1 and dome(inward).max() <= 1 and (dome(inward)[~inside] == 0).all()
    turned = blob(rng(), 200, (0.5, 0.5), 0.2, elongation=2, angle=np.pi / 2, roughness=0) > 0
    assert rows[turned].std() > 1.8 * columns[turned].std()


def test_curves_are_thin_and_wind_through_the_frame():
    line = curves(rng(1), 96, 0.1, 0.01)
    assert line.min() >= 0 and line.max() <= 1
    assert 0.01 < (line > 0.5).mean() < 0.3
