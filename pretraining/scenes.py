"""What a scene is: a synthetic image and the things in it, each with its kind and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLURALS = ("cell nuclei", "debris", "lungs")
MIN_AREA_SHARE = 0.003
MIN_VISIBLE_SHARE = 0.4


@dataclass(frozen=True)
class Thing:
    """One thing a caption may name: its kind, as a noun, and its mask (S, S) bool.

    A thing of many parts (nuclei, lungs) is only ever named as a whole: it has no one place or size.
    """

    kind: str
    mask: NDArray[np.bool_]

    @property
    def has_parts(self) -> bool:
        """Whether its noun is a plural."""
        return self.kind in PLURALS


@dataclass(frozen=True)
class Scene:
    """A synthetic image (S, S, 3) uint8, what sort of picture it is, and its things, none hidden by another."""

    image: NDArray[np.uint8]
    modality: str
    things: tuple[Thing, ...]


def seen(things: Sequence[tuple[str, NDArray[np.bool_]]], within: NDArray[np.bool_]) -> tuple[Thing, ...]:
    """The things, given from back to front, as they show: cut by the frame and by what lies in front of them.

    What is too small, or mostly hidden, is left out: nobody could be asked to find it.
    """
    kept: list[Thing] = []
    free = within.copy()
    for kind, mask in reversed(things):
        shown = mask & free
        free &= ~mask
        if shown.mean() >= MIN_AREA_SHARE and shown.sum() >= MIN_VISIBLE_SHARE * mask.sum():
            kept.append(Thing(kind, shown))
    return tuple(reversed(kept))
