"""Configurations survive JSON, and refuse what they do not know or cannot mean."""

import json
import subprocess
import sys

import pytest

import model
from model import BadConfig, ModelConfig, ModelError, TrainConfig


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(image_size_px=64, adapter_layers=(0, 2), gate_init=-0.02),
        TrainConfig(),
        TrainConfig(seed=5),
    ],
)
def test_a_configuration_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("cls", [ModelConfig, TrainConfig])
def test_unknown_keys_are_named_beside_the_known(cls):
    with pytest.raises(BadConfig, match=r"colour, taste; it knows .*(backbone|seed)"):
        cls.from_dict({"taste": 1, "colour": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": ""},
        {"image_size_px": 0},
        {"adapter_dim": 1.5},
        {"adapter_layers": (2, 1)},
        {"adapter_layers": (-1,)},
        {"beta": -1.0},
        {"temperature": 0.0},
        {"gate_init": float("nan")},
    ],
)
def test_impossible_model_settings_are_refused_by_name(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        ModelConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"max_steps": 0},
        {"batch_size": True},
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"warmup_share": 1.0},
        {"weight_decay": -0.1},
        {"dice_weight": "much"},
        {"time_limit_seconds": 0},
    ],
)
def test_impossible_training_settings_are_refused_by_name(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_the_face_is_complete_and_every_error_has_one_base():
    for name in model.__all__:
        thing = getattr(model, name)
        assert thing.__name__ == name
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, ModelError)
    with pytest.raises(AttributeError, match="nonsense"):
        model.nonsense  # noqa: B018


def test_importing_the_room_and_reading_images_loads_no_torch():
    code = (
        "import sys, model; from model import ModelConfig, TrainConfig, read_image, ImageTooLarge; "
        "print([m for m in ('torch', 'open_clip', 'scipy') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
