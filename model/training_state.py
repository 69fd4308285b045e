"""Where a training run stands, and the file it goes on from after it was killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from model import checkpoints
from model.errors import ResumeMismatch

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Standing:
    """How far a run has come: steps taken, seconds used by all attempts together, images per pass, and validations.

    history: (step, Dice) of each validation; best: the weights of the first that had the highest Dice.
    """

    micro_batch_size: int
    step: int = 0
    seconds: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_dice(self) -> float:
        """The highest Dice so far; below all others before the first validation."""
        return max((dice for _, dice in self.history), default=-1.0)

    @property
    def validations_without_gain(self) -> int:
        """How many validations came after the best."""
        values = [dice for _, dice in self.history]
        return len(values) - 1 - values.index(max(values)) if values else 0


def write(
    path: Path, job: str, standing: Standing, trained: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer
) -> None:
    """Keep everything a run needs to go on at `path`, atomically. job: the fingerprint of what it depends on."""
    content = {
        "job": job,
        "step": standing.step,
        "seconds": standing.seconds,
        "micro_batch_size": standing.micro_batch_size,
        "history": standing.history,
    }
    checkpoints.write(path, dict(_tensors(standing, trained, adam)), content, checkpoints.STATE_FORMAT)


def _tensors(
    standing: Standing, trained: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in trained.items():
        yield f"weight/{name}", parameter
        yield from ((f"{moment}/{name}", adam.state[parameter][moment]) for moment in MOMENTS if adam.state[parameter])
    for name, tensor in standing.best.items():
        yield f"best/{name}", tensor


def restore(path: Path, job: str, trained: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer) -> Standing:
    """The standing kept at `path`; weights and moments are put back in place.

    Raises CheckpointUnreadable, and ResumeMismatch for the state of another job.
    """
    tensors, content = checkpoints.read(path, checkpoints.STATE_FORMAT)
    if content.get("job") != job:
        raise ResumeMismatch(
            f"{path} is the state of another training run (other start, examples or settings); remove it to begin anew"
        )
    step = int(content["step"])
    for name, parameter in trained.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        if f"{MOMENTS[0]}/{name}" in tensors:
            moments = {m: tensors[f"{m}/{name}"].to(parameter.device) for m in MOMENTS}
            adam.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    history = [(int(at), float(dice)) for at, dice in content["history"]]
    best = {name: tensors[f"best/{name}"].to(p.device) for name, p in trained.items() if f"best/{name}" in tensors}
    return Standing(int(content["micro_batch_size"]), step, float(content["seconds"]), history, best)
