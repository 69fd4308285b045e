"""Freeze which annotations a round trains and is evaluated on. The held-out set never trains."""

import logging
from typing import Any

import numpy as np

from backend.label_studio.payloads import parse_label_config
from backend.predictions import image_of, prompt_for
from backend.rounds.job import Job, Write
from backend.store import Session, annotations, projects, rounds
from backend.tables import Annotation, Role, RoundItem, Task

log = logging.getLogger(__name__)


def step(job: Job) -> Write:
    """Fetch the images, check each mask against its image, freeze the items; broken tasks are left out by name."""
    with job.ctx.store.begin() as s:
        projects.forget_problems(s, job.project.id)  # images whose storage was away may be back
        found = annotations.usable(s, job.project.id)
    items: list[RoundItem] = []
    left_out: dict[str, str] = {}
    for done, (annotation, task, masks) in enumerate(found):
        job.claim.report("select", done, len(found))
        try_items, problem = _items_of(job, annotation, task, masks)
        items += try_items
        if problem:
            left_out[str(task.id)] = problem

    def write(s: Session) -> dict[str, Any]:
        rounds.freeze_items(s, items)
        return {"left_out": left_out}

    return write


def _items_of(
    job: Job, annotation: Annotation, task: Task, masks: dict[str, str]
) -> tuple[list[RoundItem], str | None]:
    image_sha256 = image_of(job.ctx, task)
    if image_sha256 is None:
        return [], _problem_of(job, task)
    size = job.ctx.files.image_size(image_sha256)
    wrong = [label for label, sha256 in masks.items() if job.ctx.files.mask_size(sha256) != size]
    if wrong:
        problem = f"the mask of {', '.join(wrong)} has not the size of its image, {size[1]} x {size[0]} px"
        log.warning("annotation %s of task %s is left out: %s", annotation.id, task.id, problem)
        return [], problem
    labels = parse_label_config(job.project.label_config).labels
    return [
        RoundItem(
            round_id=job.round.id,
            annotation_id=annotation.id,
            label=label,
            task_id=task.id,
            role=Role.held_out if task.held_out else Role.train,
            image_sha256=image_sha256,
            # A label that was not painted is an answer as well: it is not in this image.
            mask_sha256=masks.get(label) or job.ctx.files.put_mask(np.zeros(size, dtype=bool)),
            prompt=prompt_for(job.project, task, label),
        )
        for label in labels
    ], None


def _problem_of(job: Job, task: Task) -> str:
    with job.ctx.store.read() as s:
        return projects.task(s, task.id).problem or "its image cannot be used"
