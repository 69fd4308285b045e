"""What the tests of training share: very short runs, ways to end them, and comparisons of what they learnt."""

import dataclasses

import torch

from model import ModelConfig, Segmenter, Source, TrainConfig, validation

SHORT = TrainConfig(max_steps=6, time_limit_seconds=None, batch_size=4, state_interval_seconds=0)
VALIDATED = dataclasses.replace(SHORT, validation_share=0.565, validation_min_images=3)  # half of the six discs


def small(seed=1, **fields):
    """An untrained tiny segmenter of 32 px, which takes a step in a blink."""
    fields = {"image_size_px": 32, "adapter_dim": 16, **fields}
    return Segmenter.create(ModelConfig(**fields), seed=seed, source=Source(weights="random"))


def weights(segmenter):
    return segmenter.network.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def distance(one, other):
    """Euclidean, over all weights."""
    return sum((one[name].double() - other[name].double()).square().sum().item() for name in one) ** 0.5


class Stopped(Exception):
    pass


def stop_after(step):
    def on_progress(progress):
        if progress.step == step:
            raise Stopped

    return on_progress


def ticking():
    """A clock that goes on by a second whenever it is asked."""
    seconds = iter(range(10_000))
    return lambda: float(next(seconds))


def validate_often(monkeypatch):
    """After every epoch, however short, which is more often than real runs afford."""
    monkeypatch.setattr(validation, "MIN_STEPS_BETWEEN", 1)
    monkeypatch.setattr(validation, "COST", 0.0)
