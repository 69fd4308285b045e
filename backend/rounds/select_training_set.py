"""Freeze which masks a round trains and is evaluated on. The held-out set never trains."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend import consensus
from backend.label_studio.payloads import parse_label_config
from backend.predictions import image_of
from backend.prompts import prompt_for
from backend.rounds.job import Job, Write
from backend.store import Session, annotations, projects, rounds
from backend.tables import Annotation, Role, RoundItem, Task
from model import read_mask

log = logging.getLogger(__name__)

Answer = tuple[Annotation, dict[str, str]]  # an annotator's latest annotation of a task, and its masks by label


@dataclass(frozen=True)
class _Image:
    sha256: str
    size: tuple[int, int]  # height, width


def step(job: Job) -> Write:
    """Fetch the images, check each mask against its image, freeze the items; broken tasks are left out by name."""
    selected_at = job.ctx.now()  # before the reading: what comes during it is news for the next round
    with job.ctx.store.begin() as s:
        projects.forget_problems(s, job.project.id)  # images whose storage was away may be back
        found = annotations.answers(s, job.project.id)
    items: list[RoundItem] = []
    left_out: dict[str, str] = {}
    for done, (task, answers) in enumerate(found):
        job.claim.report("select", done, len(found))
        of_task, problems = _items_of(job, task, answers)
        items += of_task
        left_out |= problems

    def write(s: Session) -> dict[str, Any]:
        rounds.freeze_items(s, items)
        return {"left_out": left_out, "selected_at": selected_at}

    return write


def _items_of(job: Job, task: Task, answers: Sequence[Answer]) -> tuple[list[RoundItem], dict[str, str]]:
    """The items of one task, one for each label; and what is left out by name: the task, or some of its annotations."""
    sha256 = image_of(job.ctx, task)
    if sha256 is None:
        return [], {str(task.id): _problem_of(job, task)}
    image = _Image(sha256, job.ctx.files.image_size(sha256))
    if job.ctx.settings.consensus == "latest":
        answers = answers[-1:]
    fitting: list[Answer] = []
    problems: dict[str, str] = {}
    for annotation, masks in answers:
        problem = _mismatch(job, image, masks)
        if problem is None:
            fitting.append((annotation, masks))
            continue
        log.warning("annotation %s of task %s is left out: %s", annotation.id, task.id, problem)
        problems[annotations.left_out_key(annotation.id)] = problem
    if not fitting:
        return [], {str(task.id): problem for problem in problems.values()}
    labels = parse_label_config(job.project.label_config).labels
    return [_item(job, task, image, fitting, label) for label in labels], problems


def _mismatch(job: Job, image: _Image, masks: dict[str, str]) -> str | None:
    wrong = [label for label, sha256 in masks.items() if job.ctx.files.mask_size(sha256) != image.size]
    height, width = image.size
    return f"the mask of {', '.join(wrong)} has not the size of its image, {width} x {height} px" if wrong else None


def _item(job: Job, task: Task, image: _Image, answers: Sequence[Answer], label: str) -> RoundItem:
    # A label that was not painted is an answer as well: it is not in this image.
    sources = {
        str(annotation.id): masks.get(label) or job.ctx.files.put_mask(np.zeros(image.size, dtype=bool))
        for annotation, masks in answers
    }
    latest = answers[-1][0]
    return RoundItem(
        round_id=job.round.id,
        annotation_id=latest.id,
        label=label,
        task_id=task.id,
        role=Role.held_out if task.held_out else Role.train,
        image_sha256=image.sha256,
        mask_sha256=sources[str(latest.id)] if len(answers) == 1 else _fused(job, list(sources.values())),
        prompt=prompt_for(job.project, task, label),
        sources=sources if len(answers) > 1 else None,
    )


def _fused(job: Job, mask_sha256s: Sequence[str]) -> str:
    how, files = job.ctx.settings.consensus, job.ctx.files
    if how == "latest":
        return mask_sha256s[-1]
    masks = [read_mask(files.path("masks", sha256), files.max_image_pixels) for sha256 in mask_sha256s]
    return files.put_mask(consensus.fuse(masks, how))


def _problem_of(job: Job, task: Task) -> str:
    with job.ctx.store.read() as s:
        return projects.task(s, task.id).problem or "its image cannot be used"
