"""What is saved is what is loaded; anything else is refused with its name, and nothing is ever unpickled."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model import CheckpointMismatch, CheckpointUnreadable, Segmenter, checkpoints
from tests.model.conftest import disc


@pytest.fixture
def saved(segmenter, tmp_path):
    path = tmp_path / "model.safetensors"
    segmenter.save(path, {"round": 3, "metrics": {"dice": 0.8}})
    return path


def test_a_loaded_segmenter_answers_as_the_saved_one(segmenter, saved):
    image, _ = disc(0)
    loaded = Segmenter.load(saved)
    assert loaded.config == segmenter.config
    one, other = (s.segment(image, "a disc", 3, seed=1) for s in (segmenter, loaded))
    np.testing.assert_array_equal(one.probability, other.probability)
    np.testing.assert_array_equal(one.draws, other.draws)


def test_card_and_configuration_travel_with_the_weights(segmenter, saved):
    _, content = checkpoints.read(saved, checkpoints.CHECKPOINT_FORMAT)
    assert content["config"] == segmenter.config.to_dict()
    assert content["card"] == {"round": 3, "metrics": {"dice": 0.8}}
    assert content["temperature"] == 1.0 and content["towers"] is None


def test_saving_replaces_at_once_and_leaves_nothing_behind(segmenter, saved, monkeypatch):
    before = saved.read_bytes()

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="no space"):
        segmenter.save(saved, {"round": 4})
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("place", [4, 60, -5, -400_000])
def test_one_flipped_bit_is_noticed(saved, place):
    data = bytearray(saved.read_bytes())
    data[place] ^= 1
    saved.write_bytes(data)
    with pytest.raises((CheckpointUnreadable, CheckpointMismatch), match=r"model\.safetensors"):
        Segmenter.load(saved)


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_a_cut_off_file_is_unreadable(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(CheckpointUnreadable, match=r"model\.safetensors"):
        Segmenter.load(saved)


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(CheckpointUnreadable, match=r"none\.safetensors"):
        Segmenter.load(tmp_path / "none.safetensors")


class Bomb:
    """Would leave a trace if anybody unpickled it."""

    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


@pytest.mark.parametrize(
    "write", [lambda path: path.write_bytes(pickle.dumps(Bomb())), lambda path: torch.save(Bomb(), path)]
)
def test_a_pickle_is_refused_and_never_run(tmp_path, write):
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointUnreadable, match=r"model\.pt"):
        Segmenter.load(path)
    assert not Bomb.exploded


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointUnreadable, match=r"foreign\.safetensors.*format"):
        Segmenter.load(path)


def rewritten(saved, change):
    """The file with its tensors changed, otherwise whole."""
    tensors, content = checkpoints.read(saved, checkpoints.CHECKPOINT_FORMAT)
    change(tensors, content)
    checkpoints.write(saved, tensors, content, checkpoints.CHECKPOINT_FORMAT)
    return saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, _: t.pop("mask_head.0.weight"), r"missing mask_head\.0\.weight"),
        (lambda t, _: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda t, _: t.update({"mask_head.0.bias": torch.zeros(3)}), r"mask_head\.0\.bias has shape \(3,\)"),
        (lambda _, c: c["config"].update(colour="red"), "colour"),
        (lambda _, c: c.pop("config"), "config"),
    ],
)
def test_a_file_that_does_not_fit_says_where(saved, change, message):
    with pytest.raises(CheckpointMismatch, match=message):
        Segmenter.load(rewritten(saved, change))


def test_an_unknown_backbone_in_a_file_is_named(saved):
    def change(_, content):
        content["config"]["backbone"] = "huge"

    with pytest.raises(CheckpointMismatch, match="huge"):
        Segmenter.load(rewritten(saved, change))


def test_damaged_metadata_is_unreadable(saved):
    tensors = load_file(saved)
    save_file(tensors, saved, {"format": checkpoints.CHECKPOINT_FORMAT, "content": "{", "digest": ""})
    with pytest.raises(CheckpointUnreadable, match="restore it from a copy"):
        Segmenter.load(saved)


def test_a_card_must_be_json(segmenter, tmp_path):
    for card in ({"bad": object()}, {"bad": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            segmenter.save(tmp_path / "model.safetensors", card)
    assert not list(tmp_path.iterdir())
