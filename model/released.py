"""Checkpoints of the released MedCLIPSeg code (HealthX-Lab/MedCLIPSeg): `.pth` files with the whole state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import backbones, recipes
from model.backbones import RANDOM, Source, files
from model.config import ModelConfig
from model.errors import CheckpointMismatch
from model.network import Network
from model.segmenter import Segmenter

_OWN = (
    (re.compile(r"^(pvl_adapters\.\d+\.)proj_vis_down\.0\."), r"\1proj_vis_down."),
    (re.compile(r"^(pvl_adapters\.\d+\.)two_way\."), r"\1"),
)


def rename(tensors: Mapping[str, Tensor], towers: Any) -> dict[str, Tensor]:
    """Tensors of a released state dict under the names they have in a Network over `towers`.

    What the released code keeps twice (`clip_model.*` of the CLIP backbones) is taken once. A name that is not known
    stays, so that loading can complain of it.
    """
    answer: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_copy = name.startswith("clip_model.") and not name.startswith("clip_model.token_embedding.")
        if is_copy or name.endswith(files.IGNORED_ENDINGS):
            continue
        answer[_renamed(name, towers.released)] = tensor
    return answer


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return f"towers.{new}{name.removeprefix(old)}"
    for pattern, replacement in _OWN:
        name = pattern.sub(replacement, name)
    return name


def load_released(
    path: Path, backbone: str = "unimedclip", device: str | torch.device = "cpu", source: Source | None = None
) -> Segmenter:
    """A segmenter from a released `.pth`, which also brings the towers; its inputs are prepared as that code does.

    Of `source` only the tokenizer is used. Nothing is unpickled beyond tensors and numbers. Raises
    CheckpointUnreadable, CheckpointMismatch (naming what does not fit, a checkpoint of another backbone included),
    UnknownBackbone and BackboneUnavailable.
    """
    tensors = files.read_state(path)
    config = backbones.get(backbone).complete(_config(tensors, backbone, path))
    network = Network(config, backbones.get(backbone), Source(RANDOM, source.tokenizer if source else None))
    what = f"{path} as a released checkpoint over {backbone}"
    cure = "name the backbone it was trained over (unimedclip, biomedclip, clip or pubmedclip)"
    files.fit(network, network.state_dict(), rename(tensors, network.towers), what, cure)
    return Segmenter(config, network, device)


def _config(tensors: Mapping[str, Tensor], backbone: str, path: Path) -> ModelConfig:
    """The released configuration; adapters are as many and as wide as the file has them, from block 1 on."""
    adapters = {int(match[1]) for name in tensors if (match := re.match(r"pvl_adapters\.(\d+)\.", name))}
    down = tensors.get("pvl_adapters.0.proj_txt_down.weight")
    if down is None:
        raise CheckpointMismatch(f"{path} has no adapters, so it is no MedCLIPSeg checkpoint; give a released .pth")
    layers = tuple(range(1, len(adapters) + 1))
    return recipes.get("released").model_config(backbone=backbone, adapter_dim=len(down), adapter_layers=layers)
