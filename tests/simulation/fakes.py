"""A labelled folder that costs nothing, and a learner whose every answer is known beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from simulation.dataset import Pair
from simulation.loop import Judged, Quality, Seen


def make_pairs(n: int, per_group: int = 2) -> list[Pair]:
    paths = [Path(f"{i}.png") for i in range(n)]
    return [Pair(str(i), path, path, f"g{i // per_group}", "x") for i, path in enumerate(paths)]


def write_folder(folder: Path, n: int, per_group: int = 2) -> Path:
    """Rows and empty files: enough for whoever only looks for the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["id,image,mask,group,published_split,prompt"]
    for i in range(n):
        (folder / f"{i}.png").touch()
        rows.append(f"{i},{i}.png,{i}.png,g{i // per_group},,x")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def doubt(pair: Pair) -> float:
    """Foreground probability everywhere in the image: the entropy of image i grows with i."""
    return 0.5 + 0.45 / (1 + int(pair.id))


@dataclass(frozen=True)
class Answer:
    draws: np.ndarray
    embedding: np.ndarray


@dataclass
class FakeLearner:
    """Dice grows with the number of labels. Keeps what it was asked."""

    steps: int = 10
    trained: list[tuple[int, list[str]]] = field(default_factory=list)
    evaluated: list[list[str]] = field(default_factory=list)
    segmented: list[list[str]] = field(default_factory=list)

    def train(self, pairs: Sequence[Pair], seed: int) -> tuple[int, int]:
        self.trained.append((seed, [pair.id for pair in pairs]))
        return len(pairs), self.steps

    def evaluate(self, model: int, pairs: Sequence[Pair]) -> Quality:
        self.evaluated.append([pair.id for pair in pairs])
        images = tuple(Judged(pair.id, dice=model / 100, confidence=0.5) for pair in pairs)
        return Quality(dice=model / 100, nsd=model / 200, ece=0.1, aurc=0.2, images=images)

    def segment(self, model: int, pairs: Sequence[Pair], seed: int) -> Iterator[Seen]:
        self.segmented.append([pair.id for pair in pairs])
        for pair in pairs:
            yield Answer(np.full((2, 4, 4), doubt(pair)), np.full(3, int(pair.id)))
