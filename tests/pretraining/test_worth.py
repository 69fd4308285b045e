"""The packaged weights are worth having: what takes random weights minutes, they learn in a few steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import Example, ModelConfig, Segmenter, Source, TrainConfig, fine_tune
from pretraining.card import card
from pretraining.endoscopy import endoscopy
from pretraining.loop import Plan

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a polyp in a colonoscopy image"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bumps(n, *seed):
    """Images (96, 96, 3) and masks of bumps that no run of pretraining with the default seed has drawn."""
    made = (endoscopy(np.random.default_rng([Plan().seed + 1, *seed, i]), 96) for i in range(4 * n))
    found = [(m.image, [t.mask for t in m.things if t.kind == "polyp"]) for m in made]
    return [(image, np.any(masks, axis=0)) for image, masks in found if masks][:n]


def written(folder, pictures):
    examples = []
    for i, (image, mask) in enumerate(pictures):
        paths = folder / f"{i}.png", folder / f"{i}-mask.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(mask.astype(np.uint8) * 255).save(paths[1])
        examples.append(Example(*paths, prompt=PROMPT, group=str(i)))
    return examples


def dice(segmenter, pictures):
    answers = segmenter.segment_many([image for image, _ in pictures], [PROMPT] * len(pictures), n_draws=0)
    overlaps = []
    for answer, (_, mask) in zip(answers, pictures, strict=True):
        found = answer.probability >= 0.5
        overlaps.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
    return float(np.mean(overlaps))


def test_the_packaged_weights_are_those_of_the_default_plan_and_of_this_generator():
    packaged = json.loads((ROOT / "model" / "weights" / "tiny.json").read_text())
    told = card(Plan(), Plan().steps)
    assert {key: packaged[key] for key in told} == told


def test_a_few_steps_from_packaged_weights_beat_as_many_from_random_ones(tmp_path):
    few = TrainConfig(max_steps=10, time_limit_seconds=None, batch_size=4)
    examples, held_out = written(tmp_path, bumps(8, 1)), bumps(24, 2)
    packaged, random = (
        dice(fine_tune(Segmenter.create(ModelConfig(), seed=3, source=source), examples, few), held_out)
        for source in (Source(), Source(weights="random"))
    )
    assert packaged > random + 0.2
    assert packaged > 0.4
