"""Candidate and incumbent on the same held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.rounds.job import Job, Write, nothing
from backend.rounds.train import examples_of, forget_state, speakable
from backend.store import predictions, rounds
from backend.tables import Role

if TYPE_CHECKING:
    from model import Example, Segmenter


def step(job: Job) -> Write:
    """Evaluate both versions; without held-out annotations there is nothing to compare on, and the gate is told so."""
    if job.round.candidate_id is None:
        return nothing
    forget_state(job)
    with job.ctx.store.read() as s:
        items = rounds.items(s, job.round.id, Role.held_out)
        groups = rounds.groups(s, items)
        candidate = predictions.version(s, job.round.candidate_id)
        incumbent = predictions.version(s, job.round.incumbent_id) if job.round.incumbent_id else None
    items, left_out = speakable(job.ctx.serving.load(candidate).segmenter, items)
    reasons = (job.round.left_out or {}) | left_out
    if not items:
        return lambda _s: {"left_out": reasons}
    examples = examples_of(job, items, groups)
    evaluation: dict[str, Any] = {
        "items": [[item.task_id, item.label] for item in items],
        "groups": _numbered([groups[item.task_id] for item in items]),
    }
    for name, version in (("incumbent", incumbent), ("candidate", candidate)):
        if version is not None:
            job.claim.report(f"evaluate {name}", 0, len(examples))
            evaluation[name] = _metrics(job.ctx.serving.load(version).segmenter, examples)
    return lambda _s: {"evaluation": evaluation, "left_out": reasons}


def _numbered(keys: Sequence[str]) -> list[int]:
    """Which items share a group, without the group's name: it may name a patient, and evaluations are read widely."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]


def _metrics(segmenter: Segmenter, examples: list[Example]) -> dict[str, Any]:
    from model import evaluate

    return evaluate(segmenter, examples).to_dict()
