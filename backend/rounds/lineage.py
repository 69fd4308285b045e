"""Where a model version comes from, in enough detail to train it again: `reproduce` does, and compares."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model import TrainConfig

_MODEL_ROOM = Path(__file__).resolve().parents[2] / "model"


@functools.cache
def code_version() -> dict[str, str]:
    """What computed: versions of Wardround and torch, and a fingerprint of the model room's source."""
    fingerprint = hashlib.sha256()
    for path in sorted(_MODEL_ROOM.rglob("*.py")):
        fingerprint.update(path.relative_to(_MODEL_ROOM).as_posix().encode() + b"\0" + path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in ("wardround", "torch")}
    return versions | {"model_sha256": fingerprint.hexdigest()}


def threads() -> int:
    """CPU threads of torch: sums in another order end in other last bits."""
    import torch

    return torch.get_num_threads()


@dataclass(frozen=True)
class Clock:
    """What the clock said after each step of a training: a time limit lets it decide the learning rate and the end.

    It is kept in a file, one line a step, so that a training taken up by another process has a whole record.
    """

    path: Path

    def note(self, step: int, seconds: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{step} {seconds!r}\n")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def that_mattered(self, config: TrainConfig) -> list[float] | None:
        """Seconds after each step; None when steps alone decided, as they do where the time limit is generous."""
        limit = config.time_limit_seconds
        seconds = self._by_step()
        n_steps = config.max_steps or len(seconds)
        if limit is None or all(at / limit <= step / n_steps for step, at in enumerate(seconds, start=1)):
            return None
        return seconds

    def _by_step(self) -> list[float]:
        if not self.path.exists():
            return []
        noted: dict[int, float] = {}
        for line in self.path.read_text().splitlines():
            step, _, at = line.partition(" ")
            try:
                noted[int(step)] = float(at)  # a step taken again after a kill replaces the lost one
            except ValueError:
                continue  # the line that a kill cut off; its step is taken again
        return [noted[step] for step in sorted(noted)]


def replayed(seconds: list[float] | None) -> Callable[[], float]:
    """A clock that says again what was said; one that stands still when the time did not matter."""
    told: Iterator[float] = chain([0.0], seconds) if seconds else repeat(0.0)
    return lambda: next(told)


def weights_digest(path: Path) -> str:
    """The digest of a checkpoint's tensors, whatever its card says."""
    from model.checkpoints import describe

    digest: Any = describe(path)["digest"]
    return str(digest)
