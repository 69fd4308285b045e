"""Captions that name things of a scene, and the mask they mean. Every word is true of the finished image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretraining.scenes import Scene, Thing

SMALL_SHARE, LARGE_SHARE = 0.03, 0.12
MARGIN = 1.15


@dataclass(frozen=True)
class Query:
    """A caption and the mask (S, S) bool of what it names, never empty."""

    prompt: str
    mask: NDArray[np.bool_]


def queries(scene: Scene, rng: np.random.Generator, most: int = 3) -> list[Query]:
    """Up to `most` queries about a scene, each with another sort of caption or thing; none for a scene of no things."""
    sorts: list[Callable[[Scene, str, list[Thing], np.random.Generator], Query | None]]
    sorts = [_by_kind, _by_kind, _by_place, _by_rank, _described]
    kinds = list(dict.fromkeys(thing.kind for thing in scene.things))
    found: dict[str, Query] = {}
    for _ in range(2 * most if kinds else 0):
        kind = str(rng.choice(kinds))
        alike = [thing for thing in scene.things if thing.kind == kind]
        whole = any(thing.has_parts for thing in alike)
        query = (_by_kind if whole else sorts[rng.integers(len(sorts))])(scene, kind, alike, rng)
        if query is not None:
            found.setdefault(query.prompt, query)
    return list(found.values())[:most]


def centroid(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Row and column of the centre of a mask, as shares of the frame."""
    rows, columns = np.nonzero(mask)
    return float((rows.mean() + 0.5) / mask.shape[0]), float((columns.mean() + 0.5) / mask.shape[1])


def place(mask: NDArray[np.bool_]) -> str:
    """In which ninth of the frame the centre of a mask lies: "top left", "right", "center" and so on."""
    row, column = (min(int(3 * x), 2) for x in centroid(mask))
    words = [("top", "", "bottom")[row], ("left", "", "right")[column]]
    return " ".join(word for word in words if word) or "center"


def size_word(mask: NDArray[np.bool_]) -> str:
    """small, medium or large, by the share of the frame."""
    share = mask.mean()
    return "small" if share < SMALL_SHARE else "large" if share > LARGE_SHARE else "medium"


def brightness(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Mean grey value inside a mask, 0 to 255."""
    return float(image[mask].mean())


def contrast_word(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """bright or dark against the rest of the image, or "" where neither is clear."""
    difference = brightness(image, mask) - brightness(image, ~mask)
    return "bright" if difference > 15 else "dark" if difference < -15 else ""


def _single(scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if not thing.has_parts]


def _union(things: Sequence[Thing]) -> NDArray[np.bool_]:
    return np.asarray(np.any([thing.mask for thing in things], axis=0))


def _by_kind(scene: Scene, kind: str, alike: list[Thing], rng: np.random.Generator) -> Query:
    """All things of a kind, by its name alone."""
    single = kind if alike[0].has_parts else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    forms = (
        f"{kind}",
        f"{single}",
        f"the {kind}",
        f"{single} in a {scene.modality} image",
        f"the {kind} in a {scene.modality} image",
        f"{kind} in a {scene.modality} image",
        f"segment the {kind}",
    )
    return Query(str(rng.choice(forms)), _union(alike))


def _by_place(scene: Scene, kind: str, alike: list[Thing], rng: np.random.Generator) -> Query | None:
    """The one thing of a kind in its ninth of the frame."""
    chosen = alike[rng.integers(len(alike))]
    where = place(chosen.mask)
    if sum(place(thing.mask) == where for thing in alike) > 1:
        return None
    forms = (
        f"the {kind} in the {where}",
        f"one {kind} located in {where} of the image",
        f"the {kind} at the {where} of the {scene.modality} image",
    )
    return Query(str(rng.choice(forms)), chosen.mask)


_RANKS: dict[str, Callable[[Scene, Thing], float]] = {
    "brightest": lambda scene, thing: brightness(scene.image, thing.mask) + 1,
    "darkest": lambda scene, thing: 256 - brightness(scene.image, thing.mask),
    "largest": lambda scene, thing: float(thing.mask.mean()),
    "smallest": lambda scene, thing: 1 / float(thing.mask.mean()),
    "leftmost": lambda scene, thing: 1.2 - centroid(thing.mask)[1],
    "rightmost": lambda scene, thing: 0.2 + centroid(thing.mask)[1],
    "highest": lambda scene, thing: 1.2 - centroid(thing.mask)[0],
    "lowest": lambda scene, thing: 0.2 + centroid(thing.mask)[0],
}


def _by_rank(scene: Scene, kind: str, alike: list[Thing], rng: np.random.Generator) -> Query | None:
    """The first of several things in some order, and clearly so: of one kind, or of all in the scene."""
    among, noun = (alike, kind) if len(alike) > 1 and rng.uniform() < 0.5 else (_single(scene), "structure")
    if len(among) < 2:
        return None
    word = str(rng.choice(list(_RANKS)))
    values = np.array([_RANKS[word](scene, thing) for thing in among])
    order = np.argsort(-values)
    if values[order[0]] < MARGIN * values[order[1]]:
        return None
    return Query(f"the {word} {noun}", among[order[0]].mask)


def _described(scene: Scene, kind: str, alike: list[Thing], rng: np.random.Generator) -> Query | None:
    """The only thing of its kind, with its size, brightness and place."""
    if len(alike) > 1:
        return None
    mask = alike[0].mask
    words = [size_word(mask), contrast_word(scene.image, mask), kind]
    return Query(f"one {' '.join(word for word in words if word)}, located in {place(mask)} of the image", mask)
