"""Released `.pth` files: read without unpickling, fitted by name, kept in our own format."""

import json

import numpy as np
import pytest
import torch

from model import CheckpointMismatch, CheckpointUnreadable, Segmenter, Source
from model.__main__ import main
from model.backbones import RANDOM, openai
from model.released import load_released, rename


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A released checkpoint over clip with two narrow adapters and optimiser state, and the tensors in it."""
    from model import ModelConfig

    torch.manual_seed(0)
    config = ModelConfig(backbone="clip", adapter_dim=8, adapter_layers=(1, 2))
    network = Segmenter.create(config, seed=3, source=Source(RANDOM)).network
    tensors = {published(name): tensor for name, tensor in network.state_dict().items()}
    copies = {name.replace("vision_model.", "clip_model.visual."): t for name, t in tensors.items() if "vision" in name}
    tensors |= copies | {"logit_scale": torch.tensor(4.6)}
    path = tmp_path_factory.mktemp("released") / "MedCLIPSeg_clip_ViT-B-16_best_dice.pth"
    moments = {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(2)}}
    torch.save({"model": tensors, "epoch": 7, "optimizer": {"state": moments}, "best_dice": np.float64(0.8)}, path)
    return path, network.state_dict()


def published(name):
    """Our name of a tensor → its name in a released file over clip."""
    if name.startswith("towers."):
        for old, new in openai.OpenAiTowers.released:
            if name.startswith(f"towers.{new}"):
                return old + name.removeprefix(f"towers.{new}")
    name = name.replace("proj_vis_down.", "proj_vis_down.0.")
    return name.replace(".cross_attn_", ".two_way.cross_attn_")


def test_every_tensor_arrives_where_it_belongs(released):
    path, state = released
    segmenter = load_released(path, "clip")
    arrived = segmenter.network.state_dict()
    assert arrived.keys() == state.keys() and all(torch.equal(arrived[name], state[name]) for name in state)
    config = segmenter.config
    assert (config.adapter_dim, config.adapter_layers) == (8, (1, 2))
    assert (config.channels, config.statistics, config.padding) == ("bgr", "imagenet", "attended")


def test_another_backbone_is_named_key_by_key(released):
    with pytest.raises(CheckpointMismatch, match=r"missing towers\.text\..*name the backbone"):
        load_released(released[0], "unimedclip")


def test_what_is_no_medclipseg_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": {"layer.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointMismatch, match="no adapters"):
        load_released(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointUnreadable, match=r"other\.pth"):
        load_released(path)


def test_an_unknown_tensor_is_not_swallowed(released):
    towers = openai.OpenAiTowers
    assert rename({"surprise.weight": torch.zeros(1)}, towers).keys() == {"surprise.weight"}
    assert rename({"clip_model.ln_final.weight": torch.zeros(1), "logit_scale": torch.zeros(())}, towers) == {}


def test_importing_writes_a_small_checkpoint_of_ours(released, tmp_path, capsys):
    path, state = released
    ours = tmp_path / "ours.safetensors"
    assert main(["import", str(path), str(ours), "--backbone", "clip"]) == 0
    assert ours.stat().st_size < path.stat().st_size / 10
    capsys.readouterr()
    assert main(["show", str(ours)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["backbone"] == "clip" and shown["card"]["parents"][0]["file"] == path.name
    assert shown["n_numbers"] == sum(t.numel() for name, t in state.items() if not name.startswith("towers."))


def test_a_mistake_is_one_line_and_an_exit_status(tmp_path, capsys):
    assert main(["show", str(tmp_path / "none.safetensors")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
