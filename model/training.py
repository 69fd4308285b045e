"""One loop that teaches a segmenter from examples; stops at a number of steps or a time, whichever comes first.

Everything random at a step follows from the seed and the number of the step, so a run that was interrupted goes on
exactly where its state was written.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from model import checkpoints
from model.augmentation import augment
from model.config import TrainConfig
from model.data import Example, load_pairs
from model.errors import NoExamples, ResumeMismatch, TrainingDiverged
from model.losses import bce_loss, dice_loss, soft_contrastive_loss
from model.network import Noise
from model.segmenter import Segmenter, clone, to_model_frame

# Each use of chance has a stream of its own, told apart by these numbers behind the seed.
_ORDER, _AUGMENTATION, _NOISE = 0, 1, 2


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: loss of that step, seconds since the start (of all attempts together)."""

    step: int
    max_steps: int
    epoch: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class TrainingSet:
    """All examples in the model frame: images (n, S, S, 3) uint8, masks (n, S, S) bool, one prompt each."""

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    prompts: tuple[str, ...]

    @classmethod
    def load(cls, examples: Sequence[Example], size: int) -> TrainingSet:
        """Read and squash the files. Raises NoExamples and BadExample."""
        if not examples:
            raise NoExamples("there is nothing to train on; annotate some images first")
        pairs = load_pairs(examples, lambda image, mask: (to_model_frame(image, size), _squash_mask(mask, size)))
        images, masks = zip(*pairs, strict=True)
        return cls(np.stack(images), np.stack(masks), tuple(example.prompt for example in examples))

    def __len__(self) -> int:
        return len(self.prompts)


def _squash_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask (H, W) → (size, size), True where most of the area is."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR)) >= 128


def fine_tune(
    start: Segmenter,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    resume_from: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Segmenter:
    """A new segmenter, taught from `start` (which stays as it is). Every image is held in memory in the model frame.

    resume_from: where the state of training is kept: written now and then and at the end, picked up if it is there;
    the caller removes it. on_progress: called after every step; an exception from it ends the run. Raises NoExamples,
    BadExample, TrainingDiverged, ResumeMismatch and CheckpointUnreadable (both about the state).
    """
    data = TrainingSet.load(examples, start.size_px)
    run = _Run(clone(start), data, config, _job(start, data, config))
    if resume_from is not None and resume_from.exists():
        run.restore(resume_from)
    began = saved = clock() - run.seconds
    while run.progress < 1:
        loss = run.take_step()
        run.seconds = clock() - began
        if on_progress:
            on_progress(Progress(run.step, config.max_steps, run.epoch, loss, run.seconds))
        if resume_from is not None and run.ends_epoch and clock() - saved >= config.state_interval_seconds:
            run.write(resume_from)
            saved = clock()
    run.segmenter.network.eval()
    _refuse_non_finite(run.segmenter.network, run.step)
    if resume_from is not None:
        run.write(resume_from)
    return run.segmenter


class _Run:
    """One training run: the weights, the optimiser and how far it has come."""

    def __init__(self, segmenter: Segmenter, data: TrainingSet, config: TrainConfig, job: str) -> None:
        self.segmenter, self.data, self.config, self.job = segmenter, data, config, job
        self.step = 0
        self.seconds = 0.0
        self.trained = {n: p for n, p in segmenter.network.named_parameters() if p.requires_grad}
        decayed = [p for p in self.trained.values() if p.ndim > 1]
        plain = [p for p in self.trained.values() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
        segmenter.network.train()

    @property
    def progress(self) -> float:
        """How much of the run is over, by steps or by time, whichever is further; 1 or more is the end."""
        limit = self.config.time_limit_seconds
        return max(self.step / self.config.max_steps, self.seconds / limit if limit else 0.0)

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self.data) / self.config.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 0."""
        return (self.step - 1) // self._steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.step % self._steps_per_epoch == 0

    def take_step(self) -> float:
        """Learn from one batch; returns its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * schedule(self.progress, self.config.warmup_share)
        loss = self._loss()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.max_gradient_norm)
        self.step += 1
        if not bool(loss.isfinite() & norm.isfinite()):
            raise TrainingDiverged(
                f"at step {self.step} the loss is {loss.item()} and the norm of its gradient {norm.item()}; "
                f"train again with a learning rate below {self.config.learning_rate:g}"
            )
        self.optimiser.step()
        return loss.item()

    def _loss(self) -> Tensor:
        config, segmenter = self.config, self.segmenter
        chosen = self._batch()
        images = torch.from_numpy(self.data.images[chosen]).permute(0, 3, 1, 2).float() / 255
        masks = torch.from_numpy(self.data.masks[chosen])[:, None].float()
        if config.augment:
            images, masks = augment(images, masks, _rng(config.seed, _AUGMENTATION, self.step))
        noise = _noise(config.seed, self.step, len(chosen), segmenter.device)
        tokens = segmenter.tokenise([self.data.prompts[i] for i in chosen])
        output = segmenter.network(segmenter.normalise(images), tokens, noise)
        logits, masks = output.logits[:, None], masks.to(segmenter.device)
        contrast = soft_contrastive_loss(output.patches, output.text, segmenter.config.temperature)
        overlap, cross_entropy = dice_loss(logits, masks), bce_loss(logits, masks)
        return config.dice_weight * overlap + config.bce_weight * cross_entropy + config.contrastive_weight * contrast

    def _batch(self) -> NDArray[np.intp]:
        """Positions of the coming batch: each epoch shuffles anew, its last batch is topped up from its front."""
        epoch, place = divmod(self.step, self._steps_per_epoch)
        order = _rng(self.config.seed, _ORDER, epoch).permutation(len(self.data))
        size = min(self.config.batch_size, len(self.data))
        return np.take(order, np.arange(place * size, (place + 1) * size), mode="wrap")

    def write(self, path: Path) -> None:
        """Keep the state of training at `path`, atomically."""
        content = {"job": self.job, "step": self.step, "seconds": self.seconds}
        checkpoints.write(path, dict(self._state()), content, checkpoints.STATE_FORMAT)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.trained.items():
            yield f"weight/{name}", parameter
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimiser.state:
                    yield f"{moment}/{name}", self.optimiser.state[parameter][moment]

    def restore(self, path: Path) -> None:
        """Go on from the state at `path`. Raises CheckpointUnreadable and ResumeMismatch."""
        tensors, content = checkpoints.read(path, checkpoints.STATE_FORMAT)
        if content.get("job") != self.job:
            raise ResumeMismatch(
                f"{path} is the state of another training run (other start, examples or settings); "
                "remove it to begin anew"
            )
        self.step, self.seconds = int(content["step"]), float(content["seconds"])
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
            if f"exp_avg/{name}" in tensors:
                moments = {m: tensors[f"{m}/{name}"].to(parameter.device) for m in ("exp_avg", "exp_avg_sq")}
                self.optimiser.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}


def schedule(progress: float, warmup_share: float) -> float:
    """Share of the full learning rate at `progress` in [0, 1]: up in a line, down in half a cosine to a hundredth."""
    if progress < warmup_share:
        return 0.01 + 0.99 * progress / warmup_share
    fall = min(1.0, (progress - warmup_share) / (1 - warmup_share))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * fall)) / 2


def _rng(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(list(numbers))


def _noise(seed: int, step: int, rows: int, device: torch.device) -> Noise:
    """The noise of one step, different for every image of the batch."""
    generator = torch.Generator().manual_seed(int(_rng(seed, _NOISE, step).integers(2**63)))
    return lambda m, width: torch.randn(rows, m, width, generator=generator).to(device)


def _job(start: Segmenter, data: TrainingSet, config: TrainConfig) -> str:
    """A fingerprint of everything a run depends on."""
    settings = [start.config.to_dict(), config.to_dict(), data.prompts, checkpoints.digest(start.network.state_dict())]
    total = hashlib.sha256(json.dumps(settings).encode())
    total.update(data.images.tobytes())
    total.update(data.masks.tobytes())
    return total.hexdigest()


def _refuse_non_finite(network: nn.Module, step: int) -> None:
    broken = [name for name, parameter in network.named_parameters() if not bool(parameter.isfinite().all())]
    if broken:
        raise TrainingDiverged(
            f"after step {step} the weights {', '.join(broken[:4])} are not finite; "
            "train again with a lower learning rate"
        )
