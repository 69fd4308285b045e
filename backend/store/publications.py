"""Rows of publications: under which name a round publishes its queue, and how much of it Label Studio has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from backend.store.predictions import queued_ids
from backend.store.projects import chunks
from backend.tables import FINISHED, Prediction, Publication, Query, Round, RoundStatus


def of_round(s: Session, round_id: int) -> Publication | None:
    return s.get(Publication, round_id)


def begin(s: Session, round_id: int, name: str, attempt: int, triage: Mapping[str, Any] | None = None) -> Publication:
    """Publish under this name from now on: nothing has been sent under it. triage: `rounds.triage.Judged.terms`."""
    terms = dict(triage) if triage else None
    return s.merge(Publication(round_id=round_id, name=name, attempt=attempt, sent=0, sending=0, triage=terms))


def hidden(s: Session, round_id: int, task_ids: Sequence[int] | None = None) -> set[int]:
    """Tasks, of those given or of the whole queue, whose pre-annotation is judged too bad to be shown."""
    row = of_round(s, round_id)
    below = (row.triage or {}).get("redraw_dice") if row else None
    if below is None:
        return set()
    bad = select(Query.task_id).where(Query.round_id == round_id, Query.dice_bound < below)
    if task_ids is None:
        return set(s.scalars(bad))
    return {found for chunk in chunks(task_ids) for found in s.scalars(bad.where(Query.task_id.in_(chunk)))}


def shown(row: Prediction, hidden: Collection[int]) -> str:
    """JSON of the regions that people see: none where the queue hides them; what was made later was never judged."""
    return "[]" if row.score is not None and row.task_id in hidden else row.regions_json


def mark(s: Session, round_id: int, *, sent: int, sending: int) -> None:
    """Say what is there for certain, and up to which rank a request is about to go."""
    s.execute(update(Publication).where(Publication.round_id == round_id).values(sent=sent, sending=sending))


def was_stopped(s: Session, project_id: int, name: str) -> bool:
    """Whether a round published, or began to, under the name and was then called off or failed."""
    over = Round.status.in_((RoundStatus.cancelled, RoundStatus.failed))
    wanted = _named(project_id).where(Publication.name == name, over)
    return s.scalar(wanted.limit(1)) is not None


def queue_of(s: Session, project_id: int, name: str) -> list[int]:
    """The tasks published under the name, best first; none when no round is known to have."""
    named = select(Publication.round_id).join(Round, Round.id == Publication.round_id)
    round_id = s.scalar(named.where(Round.project_id == project_id, Publication.name == name).limit(1))
    return [] if round_id is None else queued_ids(s, round_id)


def under_way(s: Session, project_id: int) -> set[str]:
    """Names under which unfinished rounds are publishing."""
    return set(s.scalars(_named(project_id).where(Round.status.not_in(FINISHED))))


def _named(project_id: int) -> Select[Any]:
    joined = select(Publication.name).join(Round, Round.id == Publication.round_id)
    return joined.where(Round.project_id == project_id)
