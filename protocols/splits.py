"""Who trains and who is tested, by hash of a name: the same answer on every machine, and chance is the seed alone."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from protocols.errors import BadPlan

PARTS = ("train", "val", "test")


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that follows from the seed and each name alone, whatever order they came in."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}/{name}".encode()).digest(), name))


def count(percent: int, whole: int) -> int:
    """How many of `whole` a percentage is, rounded down as the published lists are; at least 1 of what is not empty."""
    return max(min(1, whole), whole * percent // 100)


def subset(names: Sequence[str], size: int, seed: int) -> list[int]:
    """Positions of `size` of the names, ascending. With one seed, a smaller subset lies inside every larger one.

    Raises BadPlan where there are fewer.
    """
    if size > len(names):
        raise BadPlan(f"{size} images are asked for, but only {len(names)} are there; ask for a smaller percentage")
    chosen = set(shuffled(names, seed)[:size])
    return [position for position, name in enumerate(names) if name in chosen]


def grouped(groups: Sequence[str], sizes: Mapping[str, int], seed: int) -> list[str]:
    """The part ("train", "val" or "test") of each image when a group never straddles two.

    groups: the group of each image. sizes: how many images each part should have. Test and then val take groups in
    shuffled order as long as the group still fits, so neither is larger than asked for, and train, which takes the
    rest, is not smaller. Raises BadPlan where a part would stay empty.
    """
    members = Counter(groups)
    left = shuffled(members, seed)
    part_of: dict[str, str] = {}
    for part in ("test", "val"):
        room = sizes[part]
        for group in left:
            if members[group] <= room:
                part_of[group] = part
                room -= members[group]
        left = [group for group in left if group not in part_of]
    parts = [part_of.get(group, "train") for group in groups]
    empty = [part for part in PARTS if sizes[part] and part not in parts]
    if empty:
        wanted = ", ".join(f"{sizes[part]} {part}" for part in PARTS)
        raise BadPlan(
            f"{len(members)} groups cannot be divided into {wanted} images ({', '.join(empty)} would stay empty); "
            "use smaller groups or --split published"
        )
    return parts
