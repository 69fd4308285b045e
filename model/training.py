"""One loop that teaches a segmenter from examples; stops at a number of steps or a time, whichever comes first.

Everything random at a step follows from the seed and the number of the step, so a run that was interrupted goes on
exactly where its state was written. Started by torchrun (see `model.distributed`), the processes share each batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from model import batches, checkpoints, distributed, optimiser, training_state, validation
from model.batches import TrainingSet
from model.config import TrainConfig
from model.data import Example
from model.errors import BadConfig, NonFiniteWeights, OutOfMemory, ResumeMismatch, TrainingDiverged
from model.gradient import Looker, MemoryShort, batch_gradient
from model.segmenter import Segmenter, clone
from model.training_state import Standing


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    loss: of that step; seconds: since the start, of all attempts together; eta_seconds: until the end, if nothing
    ends it early; validation_dice: of the latest validation, in the model frame; micro_batch_size: images per pass,
    fewer than asked for once memory ran short.
    """

    step: int
    max_steps: int
    epoch: int
    loss: float
    seconds: float
    eta_seconds: float
    validation_dice: float | None
    micro_batch_size: int


def fine_tune(
    start: Segmenter,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    validation: Sequence[Example] = (),
    on_progress: Callable[[Progress], None] | None = None,
    resume_from: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Segmenter:
    """A new segmenter, taught from `start` (which stays as it is). Every image is held in memory in the model frame.

    validation: what the best weights are chosen by; where none is given, some groups of the examples are set aside
    for it if the configuration asks for it and there are enough. resume_from: where the state of training is kept:
    written now and then and at the end, picked up if it is there; the caller removes it. on_progress: called after
    every step; an exception from it ends the run. With several processes only the first writes and reports.

    Raises NoExamples, BadExample, PromptTooLong, NonFiniteWeights (of the start), TrainingDiverged, OutOfMemory,
    BadConfig (fewer images in a batch than processes), ResumeMismatch and CheckpointUnreadable (about the state).
    """
    learnt, aside = (list(examples), list(validation)) if validation else batches.set_aside(examples, config)
    data = TrainingSet.load(learnt, start.config)
    judged = TrainingSet.load(aside, start.config) if aside else None
    _refuse_weights(start.network)
    _refuse_prompts(start, [*data.prompts, *(judged.prompts if judged else ())])
    run = _Run(clone(start), data, judged, config, _job(start, data, judged, config))
    run.restore(resume_from)
    began = saved = clock() - run.standing.seconds
    try:
        while not run.over:
            loss = run.take_step()
            run.standing.seconds = distributed.agreed(clock() - began, start.device)
            run.validate_if_due()
            if on_progress and distributed.rank() == 0:
                on_progress(run.report(loss))
            if resume_from is not None and clock() - saved >= config.state_interval_seconds:
                run.write(resume_from)
                saved = clock()
        if resume_from is not None:
            run.write(resume_from)
    finally:
        # Frozen towers are those of `start` too, and nobody else wants their dropout.
        run.segmenter.network.eval()
    run.take_best()
    return run.segmenter


class _Run:
    """One training run: the weights, the optimiser and how far it has come."""

    def __init__(
        self, segmenter: Segmenter, data: TrainingSet, judged: TrainingSet | None, config: TrainConfig, job: str
    ) -> None:
        self.segmenter, self.data, self.judged, self.config, self.job = segmenter, data, judged, config, job
        self.trained = {n: p for n, p in segmenter.network.named_parameters() if p.requires_grad}
        self.adam = optimiser.adam(self.trained.values(), config)
        self.learning_rate = optimiser.learning_rate(config, segmenter.network)
        images = min(config.batch_size, len(data))
        if images < distributed.world_size():
            raise BadConfig(
                f"{distributed.world_size()} processes cannot share batches of {images}; start fewer, "
                "or raise batch_size"
            )
        self.standing = Standing(min(config.micro_batch_size or images, images))
        self.steps_per_epoch = batches.steps_per_epoch(len(data), config)
        of_epochs = math.inf if config.epochs is None else config.epochs * self.steps_per_epoch
        self.max_steps = int(min(config.max_steps or math.inf, of_epochs))

    @property
    def progress(self) -> float:
        """How much of the run is over, by steps or by time, whichever is further; 1 or more is the end."""
        limit = self.config.time_limit_seconds
        return max(self.standing.step / self.max_steps, self.standing.seconds / limit if limit else 0.0)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do, or nothing to hope for."""
        patience = self.config.patience
        return self.progress >= 1 or (patience is not None and self.standing.validations_without_gain >= patience)

    def report(self, loss: float) -> Progress:
        """What the caller hears after a step."""
        standing, progress = self.standing, min(1.0, self.progress)
        return Progress(
            step=standing.step,
            max_steps=self.max_steps,
            epoch=(standing.step - 1) // self.steps_per_epoch,
            loss=loss,
            seconds=standing.seconds,
            eta_seconds=standing.seconds / progress - standing.seconds,
            validation_dice=standing.history[-1][1] if standing.history else None,
            micro_batch_size=standing.micro_batch_size,
        )

    def take_step(self) -> float:
        """Learn from one batch; returns its loss."""
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate * self._rate_share()
        loss = self._gradient()
        limit = self.config.max_gradient_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained.values(), limit)
        self.standing.step += 1
        if not (math.isfinite(loss) and bool(norm.isfinite())):
            raise TrainingDiverged(
                f"at step {self.standing.step} the loss is {loss} and the norm of its gradient {norm.item()}; "
                f"train again with a learning rate below {self.learning_rate:g}"
            )
        self.adam.step()
        return loss

    def _rate_share(self) -> float:
        """Share of the learning rate for the coming step."""
        config = self.config
        if config.rate_schedule == "epoch_cosine":
            n_epochs = math.ceil(self.max_steps / self.steps_per_epoch)
            epoch = self.standing.step // self.steps_per_epoch
            return optimiser.cosine(epoch / n_epochs, config.final_rate_share)
        return optimiser.warmup_cosine(self.progress, config.warmup_share, config.final_rate_share)

    def _gradient(self) -> float:
        """Leave the gradient of the coming batch in the parameters, in passes as small as memory asks for."""
        standing, device = self.standing, self.segmenter.device
        batch = batches.batch(self.data, self.config, standing.step, device)
        network = self.segmenter.network.train()
        if self.config.tower_dropout:
            network.towers.train()
        looker = Looker(self.segmenter, batch, self.config, standing.step)
        while True:
            try:
                return batch_gradient(looker, standing.micro_batch_size)
            except MemoryShort:
                # Only beyond this clause has the failed pass let go of what it held.
                network.zero_grad()
            self._halve(-(-len(batch) // distributed.world_size()))

    def _halve(self, images: int) -> None:
        """Fewer images per pass from now on; `images` were tried at most."""
        tried = min(self.standing.micro_batch_size, images)
        if tried == 1:
            raise OutOfMemory(
                f"not even one image at a time fits into the memory of {self.segmenter.device} beside the network; "
                "free what other programs hold, or choose bf16, a smaller image_size_px or a larger device"
            )
        self.standing.micro_batch_size = (tried + 1) // 2
        if self.segmenter.device.type == "cuda":
            torch.cuda.empty_cache()

    def validate_if_due(self) -> None:
        """Judge the weights every so many steps and at the end, and keep the best."""
        if self.judged is None:
            return
        standing = self.standing
        due = standing.step % validation.interval(len(self.data), len(self.judged), self.config) == 0
        if not due and self.progress < 1:
            return
        _refuse_trained(self.segmenter.network, standing.step)
        dice = validation.mean_dice(self.segmenter, self.judged, self.config, standing.step, standing.micro_batch_size)
        if dice > standing.best_dice and self.config.keep == "best":
            standing.best = {name: parameter.detach().clone() for name, parameter in self.trained.items()}
        standing.history.append((standing.step, dice))

    def take_best(self) -> None:
        """Put the best weights in place of the last, if any were kept."""
        _refuse_trained(self.segmenter.network, self.standing.step)
        for name, tensor in self.standing.best.items():
            self.trained[name].data.copy_(tensor)

    def write(self, path: Path) -> None:
        """Keep the state of training at `path`, once for all processes."""
        if distributed.rank() == 0:
            training_state.write(path, self.job, self.standing, self.trained, self.adam)

    def restore(self, path: Path | None) -> None:
        """Go on from the state at `path`, if there is one. Raises CheckpointUnreadable and ResumeMismatch."""
        if path is not None and path.exists():
            self.standing = training_state.restore(path, self.job, self.trained, self.adam)
        if not distributed.all_same((self.job, self.standing.step)):
            raise ResumeMismatch(
                "the processes do not train the same job from the same step; give all of them the same start, "
                "examples and settings, and a state that all can read"
            )


def _job(start: Segmenter, data: TrainingSet, judged: TrainingSet | None, config: TrainConfig) -> str:
    """A fingerprint of everything a run depends on."""
    weights = checkpoints.digest(start.network.state_dict())
    sets = [data.digest(), judged and judged.digest()]
    return hashlib.sha256(json.dumps([start.config.to_dict(), config.to_dict(), weights, sets]).encode()).hexdigest()


def _not_finite(network: nn.Module) -> str:
    """The names of the first few parameters with values that are not finite; empty if all are."""
    broken = [name for name, parameter in network.named_parameters() if not bool(parameter.isfinite().all())]
    return ", ".join(broken[:4])


def _refuse_weights(network: nn.Module) -> None:
    if broken := _not_finite(network):
        raise NonFiniteWeights(f"the weights {broken} to start from are not finite; start from another checkpoint")


def _refuse_prompts(segmenter: Segmenter, prompts: Sequence[str]) -> None:
    """Raises PromptTooLong before anything is learnt, not when the prompt's turn comes."""
    for prompt in sorted(set(prompts)):
        segmenter.tokenise([prompt])


def _refuse_trained(network: nn.Module, step: int) -> None:
    if broken := _not_finite(network):
        raise TrainingDiverged(
            f"after step {step} the weights {broken} are not finite; train again with a lower learning rate"
        )
