"""Score every task that the version to be served has not scored yet, and look closer around the cut."""

from __future__ import annotations

from typing import Any

from backend import predictions as journey
from backend.rounds.job import Job, Write, nothing
from backend.rounds.refine import refined_scores
from backend.store import Session, predictions
from backend.tables import ModelVersion, Verdict


def step(job: Job) -> Write:
    """Each prediction is stored as it is made, so a killed process goes on where it stopped."""
    with job.ctx.store.read() as s:
        version = version_to_serve(s, job)
        tasks = predictions.tasks_without(s, job.project.id, version.id) if version else []
    if version is None:
        return nothing
    if tasks:
        served = job.ctx.serving.load(version)
        journey.compute(job.ctx, job.project, served, tasks, lambda done: job.claim.report("rescore", done, len(tasks)))
    scores = refined_scores(job, version)
    version_id = version.id

    def write(s: Session) -> dict[str, Any]:
        predictions.change_scores(s, version_id, scores)
        return {}

    return write


def version_to_serve(s: Session, job: Job) -> ModelVersion | None:
    """The version the round publishes: its candidate when promoted, else the one that serves already."""
    if job.round.verdict is Verdict.promoted and job.round.candidate_id is not None:
        return predictions.version(s, job.round.candidate_id)
    return predictions.serving(s, job.project.id)
