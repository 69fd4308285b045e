"""Whatever a caption says is true of the finished image, measured again here by other means."""

import re

import numpy as np
import pytest
from scipy import ndimage

from pretraining.captions import Query, queries
from pretraining.generator import scene
from pretraining.scenes import PLURALS, Scene, Thing

SIZE = 48
RANKS = "brightest|darkest|largest|smallest|leftmost|rightmost|highest|lowest"
PLACE = r"(?:(?P<row>top|bottom) ?)?(?:(?P<column>left|right)|(?P<center>center))?"


@pytest.fixture(scope="module")
def asked():
    """Many (scene, query)."""
    return [(made, query) for p in range(300) for made, found in [scene(11, p, SIZE)] for query in found]


def test_every_query_means_something(asked):
    assert len(asked) > 400
    for made, query in asked:
        assert query.prompt.strip() and query.mask.shape == made.image.shape[:2]
        assert query.mask.any() and query.mask.dtype == bool


def test_the_words_cover_many_ways_of_asking(asked):
    prompts = " ".join(query.prompt for _, query in asked)
    for word in [*RANKS.split("|"), "small", "large", "bright", "dark", "top left", "center", "polyp", "fetal head"]:
        assert word in prompts, word


def test_a_rank_is_that_of_the_one_meant(asked):
    measure = {
        "brightest": lambda made, mask: ndimage.mean(made.image.mean(2), mask),
        "darkest": lambda made, mask: -ndimage.mean(made.image.mean(2), mask),
        "largest": lambda made, mask: mask.sum(),
        "smallest": lambda made, mask: -mask.sum(),
        "leftmost": lambda made, mask: -ndimage.center_of_mass(mask)[1],
        "rightmost": lambda made, mask: ndimage.center_of_mass(mask)[1],
        "highest": lambda made, mask: -ndimage.center_of_mass(mask)[0],
        "lowest": lambda made, mask: ndimage.center_of_mass(mask)[0],
    }
    n_ranked = 0
    for made, query in asked:
        found = re.fullmatch(f"the ({RANKS}) (.+)", query.prompt)
        if found is None:
            continue
        word, noun = found.groups()
        fitting = [t for t in made.things if t.kind == noun or (noun == "structure" and t.kind not in PLURALS)]
        values = [measure[word](made, thing.mask) for thing in fitting]
        assert len(fitting) > 1
        assert np.array_equal(fitting[int(np.argmax(values))].mask, query.mask), query.prompt
        n_ranked += 1
    assert n_ranked > 30


def test_a_place_is_where_the_centre_of_the_mask_lies(asked):
    n_placed = 0
    for made, query in asked:
        found = re.search(rf"(?:located in|in the|at the) {PLACE}(?: of the .+)?$", query.prompt)
        if found is None or not any(found.groupdict().values()):
            continue
        row, column = (x / SIZE for x in np.add(ndimage.center_of_mass(query.mask), 0.5))
        where = found.groupdict()
        assert where["row"] == ("top" if row < 1 / 3 else "bottom" if row >= 2 / 3 else None), query.prompt
        assert where["column"] == ("left" if column < 1 / 3 else "right" if column >= 2 / 3 else None), query.prompt
        assert any(np.array_equal(thing.mask, query.mask) for thing in made.things)
        n_placed += 1
    assert n_placed > 100


def test_size_and_brightness_words_are_true(asked):
    n_described = 0
    for made, query in asked:
        found = re.match("one (small|medium|large) (bright|dark)?", query.prompt)
        if found is None:
            continue
        size, light = found.groups()
        share = query.mask.sum() / SIZE**2
        assert {"small": share < 0.03, "medium": 0.03 <= share <= 0.12, "large": share > 0.12}[size]
        inside, outside = (ndimage.mean(made.image.mean(2), m) for m in (query.mask, ~query.mask))
        assert light is None or (inside > outside if light == "bright" else inside < outside)
        n_described += 1
    assert n_described > 50


def test_a_kind_alone_means_all_of_it(asked):
    n_named = 0
    for made, query in asked:
        kinds = {thing.kind for thing in made.things}
        bare = re.sub(r"^(segment the|the|an|a) |( in an? .* image| in the .* image)$", "", query.prompt)
        bare = re.sub(f" in (a |an |the )?{made.modality} image$", "", bare)
        if bare in kinds:
            whole = np.any([thing.mask for thing in made.things if thing.kind == bare], axis=0)
            assert np.array_equal(query.mask, whole), query.prompt
            n_named += 1
    assert n_named > 100


def test_nothing_is_asked_where_nothing_is_and_no_more_than_allowed():
    nothing = Scene(np.zeros((8, 8, 3), np.uint8), "test", ())
    assert queries(nothing, np.random.default_rng(0)) == []
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    one = Scene(np.zeros((8, 8, 3), np.uint8), "test", (Thing("disc", mask),))
    for seed in range(20):
        found = queries(one, np.random.default_rng(seed), most=2)
        assert 1 <= len(found) <= 2 and len({query.prompt for query in found}) == len(found)
        assert all(isinstance(query, Query) and np.array_equal(query.mask, mask) for query in found)


def test_two_alike_are_never_told_apart_by_what_they_share():
    left, right = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    left[25:35, 22:28], right[25:35, 32:38] = True, True
    image = np.full((60, 60, 3), 80, np.uint8)
    twins = Scene(image, "test", (Thing("disc", left), Thing("disc", right)))
    for seed in range(40):
        for query in queries(twins, np.random.default_rng(seed)):
            if np.array_equal(query.mask, left) or np.array_equal(query.mask, right):
                assert "leftmost" in query.prompt or "rightmost" in query.prompt
