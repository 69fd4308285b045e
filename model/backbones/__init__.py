"""The CLIP towers MedCLIPSeg stands on: a registry from a name to what builds them.

A backbone is a `Backbone` record; what it builds fulfils `Towers`, and that is all the network knows of it. `tiny` is
small and trained together with the adapters; the pretrained backbones of the paper stay frozen.
"""

from __future__ import annotations

from typing import Any

from model.backbones import bert, openai, pretrained_tiny, tiny
from model.backbones.towers import RANDOM, Backbone, Source, Towers
from model.errors import UnknownBackbone

__all__ = ["RANDOM", "Backbone", "Source", "Towers", "get", "names"]

_AS_PUBLISHED: Any = {"image_size_px": 224, "adapter_dim": 256, "adapter_layers": tuple(range(1, 11))}
"""All blocks but the first and the last get an adapter."""

_REGISTRY = {
    backbone.name: backbone
    for backbone in [
        Backbone("tiny", 96, 64, (1, 2), build=tiny.build, packaged=pretrained_tiny.packaged_state),
        Backbone("unimedclip", build=bert.build_unimedclip, **_AS_PUBLISHED),
        Backbone("biomedclip", build=bert.build_biomedclip, **_AS_PUBLISHED),
        Backbone("clip", build=openai.build_clip, **_AS_PUBLISHED),
        Backbone("pubmedclip", build=openai.build_pubmedclip, **_AS_PUBLISHED),
    ]
}


def names() -> tuple[str, ...]:
    """The names `get` knows, in order of registration."""
    return tuple(_REGISTRY)


def get(name: str) -> Backbone:
    """The backbone of that name. Raises UnknownBackbone."""
    if name not in _REGISTRY:
        raise UnknownBackbone(f"there is no backbone {name!r}; choose one of {', '.join(names())}")
    return _REGISTRY[name]
