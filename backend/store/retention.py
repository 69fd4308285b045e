"""Rows that say what may be removed to make room. Versions and rounds stay: lineage is never erased."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased, load_only

from backend.store.projects import chunks
from backend.tables import FINISHED, ModelVersion, Prediction, Round, RoundItem


def rounds_of(s: Session, project_id: int) -> Sequence[Round]:
    """Every round of the project, with no more than what became of its versions."""
    columns = load_only(Round.candidate_id, Round.incumbent_id, Round.status, Round.verdict)
    return s.scalars(select(Round).where(Round.project_id == project_id).options(columns)).all()


def versions_of(s: Session, project_id: int) -> Sequence[ModelVersion]:
    """Every version of the project, by number, with no more than its place in the lineage."""
    columns = load_only(
        ModelVersion.project_id, ModelVersion.number, ModelVersion.parent_id, ModelVersion.serving,
        ModelVersion.checkpoint_sha256, ModelVersion.pruned_at,
    )  # fmt: skip
    wanted = select(ModelVersion).where(ModelVersion.project_id == project_id).options(columns)
    return s.scalars(wanted.order_by(ModelVersion.number).execution_options(populate_existing=True)).all()


def lock_version(s: Session, version_id: int) -> None:
    """Let nobody make the version serve, or begin a round that needs it, until this transaction ends."""
    s.execute(select(ModelVersion.id).where(ModelVersion.id == version_id).with_for_update())


def mark_pruned(s: Session, version_id: int, now: datetime) -> None:
    unmarked = ModelVersion.id == version_id, ModelVersion.pruned_at.is_(None)
    s.execute(update(ModelVersion).where(*unmarked).values(pruned_at=now))


def pruned_checkpoints(s: Session) -> set[str]:
    """Names of the checkpoints that only pruned versions have, of all projects."""
    kept = aliased(ModelVersion)
    needed = select(kept.id).where(kept.pruned_at.is_(None), kept.checkpoint_sha256 == ModelVersion.checkpoint_sha256)
    wanted = select(ModelVersion.checkpoint_sha256).where(ModelVersion.pruned_at.is_not(None), ~needed.exists())
    return set(s.scalars(wanted))


def delete_pruned_predictions(s: Session, limit: int) -> int:
    """Delete up to `limit` predictions of pruned versions; returns how many."""
    pruned = select(ModelVersion.id).where(ModelVersion.pruned_at.is_not(None))
    ids = s.scalars(select(Prediction.id).where(Prediction.model_version_id.in_(pruned)).limit(limit)).all()
    for chunk in chunks(ids):
        s.execute(delete(Prediction).where(Prediction.id.in_(chunk)))
    return len(ids)


def needed_images(s: Session) -> set[str]:
    """Names of the images that the items of unfinished rounds need."""
    wanted = select(RoundItem.image_sha256).join(Round, RoundItem.round_id == Round.id)
    return set(s.scalars(wanted.where(Round.status.not_in(FINISHED)).distinct()))


def finished(s: Session, round_ids: Sequence[int]) -> set[int]:
    """Those of the rounds that are over."""
    over: set[int] = set()
    for chunk in chunks(round_ids):
        over.update(s.scalars(select(Round.id).where(Round.id.in_(chunk), Round.status.in_(FINISHED))))
    return over
