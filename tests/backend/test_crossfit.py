"""Models judge what they did not see; planted errors come first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import model
from backend import crossfit
from demo.phantoms import PROMPT, phantom
from evidence.label_errors import folds, suspicion
from model import Example, ModelConfig, Segmenter, TrainConfig
from tests.planting import SHARE, found, planted

N_IMAGES, N_FOLDS = 60, 3


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Example], list[str]]:
    """Phantoms, two of a patient, a tenth of them with a wrong mask; and how each is wrong."""
    folder = tmp_path_factory.mktemp("phantoms")
    images, masks = zip(*(phantom(n, patient=n // 2) for n in range(N_IMAGES)), strict=True)
    groups = [str(n // 2) for n in range(N_IMAGES)]
    wrong, kinds = planted(masks, groups, np.random.default_rng(0))
    examples = []
    for n, (image, mask, group) in enumerate(zip(images, wrong, groups, strict=True)):
        paths = folder / f"{n}.jpg", folder / f"{n}.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(mask).save(paths[1])
        examples.append(Example(*paths, prompt=PROMPT, group=group))
    return examples, kinds


def test_planted_errors_are_among_the_first(spoilt: tuple[list[Example], list[str]]) -> None:
    """With real training: at least 70 % of them in the first tenth."""
    examples, kinds = spoilt
    config = TrainConfig(seed=1, max_steps=40, time_limit_seconds=None)
    start = Segmenter.create(ModelConfig(image_size_px=64), seed=1)
    fold_of = folds([one.group for one in examples], N_FOLDS, rng=np.random.default_rng(1))
    opinions: dict[int, crossfit.Opinion] = {}
    for fold in range(N_FOLDS):
        opinions |= crossfit.judge_fold(start, examples, fold_of, fold, config, n_draws=2)
    said = [opinions[at] for at in range(N_IMAGES)]
    groups = [one.group for one in examples]
    scores = suspicion([one.disagreement.excess for one in said], [one.confidence for one in said], groups)
    first = found(np.argsort(-scores), kinds, SHARE)
    assert len(first) >= 0.7 * sum(map(bool, kinds)), first


def test_nobody_judges_what_they_learnt_from(
    spoilt: tuple[list[Example], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, _ = spoilt
    start = Segmenter.create(ModelConfig(image_size_px=32), seed=1)
    learnt: list[list[Example]] = []
    begun: list[Segmenter] = []

    def fine_tune(segmenter: Segmenter, some: list[Example], *_: object, **__: object) -> Segmenter:
        begun.append(segmenter)
        learnt.append(list(some))
        return segmenter

    monkeypatch.setattr(model, "fine_tune", fine_tune)
    fold_of = folds([one.group for one in examples], N_FOLDS, rng=np.random.default_rng(1))
    judged = []
    for fold in range(N_FOLDS):
        judged.append(crossfit.judge_fold(start, examples, fold_of, fold, TrainConfig(seed=1), n_draws=1))
    assert sorted(at for some in judged for at in some) == list(range(N_IMAGES)), "each once"
    for some, seen in zip(judged, learnt, strict=True):
        assert not {examples[at].group for at in some} & {one.group for one in seen}
        assert len(some) + len(seen) == N_IMAGES
    assert all(one is start for one in begun), "no fold goes on from what another learnt"


def test_a_mask_in_another_frame_keeps_its_place_and_share() -> None:
    mask = np.zeros((120, 200), dtype=bool)
    mask[30:90, 50:100] = True
    small = crossfit._resized(mask, (48, 48))
    assert small.shape == (48, 48)
    assert small.mean() == pytest.approx(mask.mean(), rel=0.02)
    assert small[12:36, 12:24].all()


def test_planting_spoils_a_tenth_in_four_ways() -> None:
    masks = [phantom(n)[1] for n in range(40)]
    wrong, kinds = planted(masks, [str(n) for n in range(40)], np.random.default_rng(0))
    assert sorted(filter(None, kinds)) == ["dilated", "missing", "shifted", "swapped"]
    for before, after, kind in zip(masks, wrong, kinds, strict=True):
        assert np.array_equal(before, after) == (kind == "")
        assert before.shape == after.shape
        if kind == "dilated":
            assert after.sum() == pytest.approx(2 * before.sum(), rel=0.05)
            assert after[before].all()
