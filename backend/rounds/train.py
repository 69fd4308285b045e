"""Fine-tune on the frozen training set: a candidate model version, its checkpoint on disk first."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import RoundError
from backend.files import writing
from backend.predictions import image_of
from backend.rounds import lineage
from backend.rounds.job import Job, Write, nothing
from backend.serving import Served
from backend.store import Session, predictions, projects, rounds
from backend.tables import Role, Round, RoundItem

if TYPE_CHECKING:
    from model import Example, ModelConfig, Progress, Segmenter, TrainConfig

log = logging.getLogger(__name__)

# The model room is imported inside the functions that run it: worker, beat and CLI import this module too, and none
# of them should pay for torch.


def step(job: Job) -> Write:
    """Train, write the checkpoint, register the candidate. Resumes from the training state a killed process left."""
    with job.ctx.store.read() as s:
        items = rounds.items(s, job.round.id, Role.train)
        groups = rounds.groups(s, items)
    if not items or job.round.candidate_id is not None:
        return nothing
    incumbent = job.ctx.serving.current(job.project.id)
    start = _start(job, incumbent)
    items, left_out = speakable(start, items)
    if not items:
        return lambda _s: {"left_out": (job.round.left_out or {}) | left_out}
    examples = examples_of(job, items, groups)
    work = _work(job)
    started = time.monotonic()
    config = train_config(job)
    clock = lineage.Clock(work / "clock.txt")
    with writing(job.ctx.files.folder):
        trained = _fine_tune(job, start, examples, config, work / "training-state", clock)
    card = {
        "project": job.project.id,
        "round": job.round.number,
        "parent": incumbent.version.number if incumbent else None,
        "parents": [incumbent.version.checkpoint_sha256] if incumbent else [],
        "n_examples": len(examples),
        "data_sha256": data_sha256(items),
        "train_config": config.to_dict(),
        "seconds": round(time.monotonic() - started, 1),
        # What it takes to train it again: see lineage.py.
        "code": lineage.code_version(),
        "begun_from": None if incumbent else _beginning(job).to_dict(),
        "begun_with_seed": None if incumbent else _first_seed(job),
        "threads": lineage.threads(),
        "clock": clock.that_mattered(config),
    }
    with writing(job.ctx.files.folder):
        trained.save(work / "candidate.safetensors", card)
    checkpoint_sha256 = job.ctx.files.put_checkpoint(work / "candidate.safetensors")

    def write(s: Session) -> dict[str, Any]:
        version = predictions.add_version(
            s, job.project.id, parent_id=incumbent.version.id if incumbent else None,
            checkpoint_sha256=checkpoint_sha256, card=card, now=job.ctx.now(),
        )  # fmt: skip
        frozen = job.round.left_out or {}
        return {"candidate_id": version.id, "incumbent_id": version.parent_id, "left_out": frozen | left_out}

    return write


def speakable(segmenter: Segmenter, items: Sequence[RoundItem]) -> tuple[list[RoundItem], dict[str, str]]:
    """The items whose prompt the text tower takes; the others, by task, with the reason why they are left out."""
    from model import PromptTooLong

    too_long: dict[str, str] = {}
    for prompt in {item.prompt for item in items}:
        try:
            segmenter.tokenise([prompt])
        except PromptTooLong as error:
            too_long[prompt] = str(error)
    left_out = {str(item.task_id): too_long[item.prompt] for item in items if item.prompt in too_long}
    for task_id, reason in left_out.items():
        log.warning("task %s is left out: %s", task_id, reason)
    return [item for item in items if item.prompt not in too_long], left_out


def data_sha256(items: Sequence[RoundItem]) -> str:
    """A fingerprint of what was trained on, whatever the order: images, masks and prompts."""
    lines = sorted(json.dumps([item.image_sha256, item.mask_sha256, item.prompt]) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def forget_state(job: Job) -> None:
    """Remove the training state; only once the candidate is registered is it of no use."""
    shutil.rmtree(_work(job), ignore_errors=True)


def _work(job: Job) -> Path:
    return job.ctx.files.work(f"round-{job.round.id}")


def _fine_tune(
    job: Job, start: Segmenter, examples: list[Example], config: TrainConfig, state: Path, clock: lineage.Clock
) -> Segmenter:
    """Go on from the state a killed process left; begin anew when it is damaged or of other settings."""
    from model import CheckpointUnreadable, ResumeMismatch, fine_tune

    try:
        return fine_tune(start, examples, config, on_progress=_reporter(job, clock), resume_from=state)
    except (CheckpointUnreadable, ResumeMismatch) as error:
        log.warning("round %s trains from the beginning: %s", job.round.id, error)
        state.unlink()
        clock.forget()
        return fine_tune(start, examples, config, on_progress=_reporter(job, clock), resume_from=state)


def examples_of(job: Job, items: Sequence[RoundItem], groups: dict[int, str]) -> list[Example]:
    """The items as files that the model room can read; the group of each task rides along.

    An image that left the cache since it was frozen is fetched again; RoundError when it is another one by now.
    """
    from model import Example

    files = job.ctx.files
    _bring_back_images(job, items)
    for item in items:  # what changed on disk is fetched again, or named before hours of training
        files.check("images", item.image_sha256)
        files.check("masks", item.mask_sha256)
    return [
        Example(
            image=files.path("images", item.image_sha256),
            mask=files.path("masks", item.mask_sha256),
            prompt=item.prompt,
            group=groups[item.task_id],
        )
        for item in items
    ]


def _bring_back_images(job: Job, items: Sequence[RoundItem]) -> None:
    gone = {item.task_id: item for item in items if not job.ctx.files.has("images", item.image_sha256)}
    with job.ctx.store.read() as s:
        tasks = projects.tasks(s, sorted(gone))
    for task_id, item in gone.items():
        if image_of(job.ctx, tasks[task_id]) != item.image_sha256:
            raise RoundError(
                f"the image of task {task_id} left the cache and is another one, or unusable, in Label Studio now; "
                "start a round anew"
            )


def train_config(job: Job) -> TrainConfig:
    """What the settings and the round's seed ask of the training."""
    from model import TrainConfig

    settings = job.ctx.settings
    return TrainConfig(
        seed=job.round.seed,
        max_steps=settings.train_max_steps,
        time_limit_seconds=settings.train_time_limit_seconds,
    )


def _start(job: Job, incumbent: Served | None) -> Segmenter:
    if incumbent is not None:
        return incumbent.segmenter
    return job.ctx.serving.create(_beginning(job), seed=_first_seed(job))


def _beginning(job: Job) -> ModelConfig:
    from model import ModelConfig

    return ModelConfig(backbone=job.ctx.settings.backbone)


def _first_seed(job: Job) -> int:
    return job.project.id


def _reporter(job: Job, clock: lineage.Clock) -> Callable[[Progress], None]:
    row: Round = job.round

    def report(progress: Progress) -> None:
        clock.note(progress.step, progress.seconds)
        job.claim.report(
            "train", progress.step, progress.max_steps, epoch=progress.epoch, loss=round(progress.loss, 4),
            eta_seconds=round(progress.eta_seconds, 1), round=row.number,
        )  # fmt: skip

    return report
