"""The four pretrained backbones: files of the very format they are published in, with random numbers in them."""

import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model import (
    BackboneUnavailable,
    BadConfig,
    CheckpointMismatch,
    CheckpointUnreadable,
    ModelConfig,
    PromptTooLong,
    Segmenter,
    Source,
    backbones,
)
from model.backbones import RANDOM, files, openai

BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "polyp", "in", "the", "colon", "cell", "##s"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder as the hub keeps one for a BERT: the words, and how they are cut."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 12}')
    return folder


def towers(name, source):
    backbone = backbones.get(name)
    return backbone.build(backbone.complete(ModelConfig(backbone=name)), source)


def published(name, state):
    """A state dict of our towers as the file of that backbone names its tensors."""
    back = {
        "unimedclip": (("text.", "text_encoder."),),
        "biomedclip": (),
        "clip": (("clip.", ""),),
        "pubmedclip": (("clip.", ""),),
    }[name]
    renamed = {}
    for key, tensor in state.items():
        old, new = next((pair for pair in back if key.startswith(pair[0])), ("", ""))
        renamed[new + key.removeprefix(old)] = tensor.clone()
    return renamed | {"logit_scale": torch.tensor(4.6)}


def write(name, tensors, folder):
    """The file as it is published: a bare or wrapped state dict, or safetensors."""
    if name == "clip":
        path = folder / "open_clip_model.safetensors"
        save_file(tensors, path)
        return path
    path = folder / f"{name}.pt"
    wrapped = {
        "unimedclip": lambda: {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in tensors.items()}},
        "biomedclip": lambda: tensors | {"text.transformer.embeddings.position_ids": torch.arange(512)[None]},
        "pubmedclip": lambda: {"state_dict": tensors, "epoch": 9, "best": np.float64(0.5)},
    }[name]()
    torch.save(wrapped, path)
    return path


@pytest.mark.parametrize("name", ["unimedclip", "biomedclip", "clip", "pubmedclip"])
def test_weights_in_the_published_format_arrive_unchanged_and_frozen(name, tmp_path):
    torch.manual_seed(0)
    state = towers(name, Source(RANDOM)).state_dict()
    path = write(name, published(name, state), tmp_path)
    segmenter = Segmenter.create(ModelConfig(backbone=name), source=Source(path))
    arrived = segmenter.network.towers.state_dict()
    assert arrived.keys() == state.keys() and all(torch.equal(arrived[key], state[key]) for key in state)
    trained = [key for key, parameter in segmenter.network.named_parameters() if parameter.requires_grad]
    assert trained and all(key.startswith(("pvl_adapters.", "mask_head.", "upscale.")) for key in trained)
    segmenter.network.train()
    assert not any(module.training for module in segmenter.network.towers.modules())


@pytest.mark.parametrize(("name", "side"), [("clip", 14), ("pubmedclip", 7), ("biomedclip", 14), ("unimedclip", 14)])
def test_every_backbone_segments_with_the_same_code(name, side, vocabulary):
    segmenter = Segmenter.create(ModelConfig(backbone=name), source=Source(RANDOM, vocabulary))
    assert segmenter.network.clip_towers.grid == side
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    two = segmenter.segment_many([image, image[::-1].copy()], ["a polyp", "the cells in the colon"], n_draws=1)
    alone = segmenter.segment(image, "a polyp", n_draws=1)
    assert two[0].probability.shape == (60, 90) and two[0].embedding.shape == (512,)
    np.testing.assert_allclose(two[0].draws, alone.draws, atol=2e-5)


def test_a_checkpoint_keeps_only_what_was_trained_and_knows_its_towers(tmp_path):
    config = ModelConfig(backbone="clip")
    mine, path = tmp_path / "towers.safetensors", tmp_path / "mine.safetensors"
    save_file(published("clip", towers("clip", Source(RANDOM)).state_dict()), mine)
    segmenter = Segmenter.create(config, seed=4, source=Source(mine)).with_temperature(1.5)
    segmenter.save(path, {"parents": []})
    assert path.stat().st_size <= 80e6
    again = Segmenter.load(path, source=Source(mine))
    assert again.temperature == 1.5
    state = segmenter.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in again.network.state_dict().items())
    with pytest.raises(CheckpointMismatch, match="other weights of clip"):
        Segmenter.load(path, source=Source(RANDOM))


def test_weights_of_another_backbone_are_named_as_such(tmp_path):
    torch.manual_seed(0)
    path = write("pubmedclip", published("pubmedclip", towers("pubmedclip", Source(RANDOM)).state_dict()), tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"visual.conv1.weight has shape.*give the weights of clip"):
        towers("clip", Source(path))
    with pytest.raises(CheckpointMismatch, match=r"missing text\.transformer.*give the weights of unimedclip"):
        towers("unimedclip", Source(path))


def test_a_missing_file_and_an_unreachable_hub_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(BackboneUnavailable, match="give the path"):
        towers("clip", Source(tmp_path / "nowhere.safetensors"))
    asked = []

    def refuse(model_id, filename=None):
        asked.append((model_id, filename))
        raise FileNotFoundError("no network")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_hf", refuse)
    for name in ("unimedclip", "biomedclip", "clip", "pubmedclip"):
        with pytest.raises(BackboneUnavailable, match="check the network"):
            towers(name, Source())
    assert asked == [
        ("TahaKoleilat/MedCLIPSeg", "checkpoints/unimed_clip_vit_b16.pt"),
        ("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "open_clip_pytorch_model.bin"),
        ("timm/vit_base_patch16_clip_224.openai", None),
        ("TahaKoleilat/MedCLIPSeg", "checkpoints/PubMedCLIP_ViT32.pth"),
    ]


class Trap:
    """What a pickle could do to whoever loads it."""

    def __reduce__(self):
        return (print, ("the trap was sprung",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": Trap()}, "more than tensors"),
        ({"epoch": 3}, "no tensors"),
        ([1, 2], "list"),
    ],
)
def test_a_torch_file_runs_no_code_and_must_hold_tensors(tmp_path, capsys, content, message):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointUnreadable, match=message):
        files.read_state(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_file_is_unreadable(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    tensors = {"a": torch.arange(1000.0)}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointUnreadable, match=path.name):
        files.read_state(path)


def test_an_archive_with_code_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(CheckpointUnreadable, match="safetensors"):
        files.read_state(path)


def test_numbers_that_are_not_finite_are_refused():
    layer = torch.nn.Linear(2, 2)
    broken = {"weight": torch.tensor([[1.0, torch.nan], [0, 0]]), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointMismatch, match="not finite in weight"):
        files.fit(layer, layer.state_dict(), broken, "it", "take another")


def test_only_the_size_of_pretraining_is_taken():
    with pytest.raises(BadConfig, match="224"):
        backbones.get("unimedclip").build(ModelConfig(backbone="unimedclip", image_size_px=256), Source(RANDOM))


def test_prompts_keep_their_end_or_are_refused(vocabulary):
    assert openai.tokenize(["a polyp"], 77)[0, :6].tolist() == [49406, 320, 6833, 335, 49407, 0]
    bert = towers("unimedclip", Source(RANDOM, vocabulary))
    tokens = bert.tokenize(["a Polyp  in the colon", "cells"])
    assert tokens.shape == (2, 256)
    assert tokens[0, :8].tolist() == [2, 5, 6, 7, 8, 9, 3, 0] and tokens[1, :5].tolist() == [2, 10, 11, 3, 0]
    with pytest.raises(PromptTooLong, match="302 tokens"):
        bert.tokenize(["a " * 300])
    with pytest.raises(PromptTooLong, match="77"):
        openai.tokenize(["a " * 76], 77)


def test_a_missing_vocabulary_says_what_to_do(tmp_path):
    with pytest.raises(BackboneUnavailable, match=r"vocab\.txt"):
        towers("unimedclip", Source(RANDOM, tmp_path / "nothing")).tokenize(["a"])
