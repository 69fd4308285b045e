"""The schema, readable as documentation. Ids of projects, tasks and annotations are Label Studio's own."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC datetimes out; SQLite forgets time zones, so they are put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class RoundStatus(enum.StrEnum):
    """The last thing a round has finished; the machine in `backend/rounds` knows what follows."""

    opened = "opened"
    selected = "selected"
    trained = "trained"
    evaluated = "evaluated"
    decided = "decided"
    rescored = "rescored"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


class Lane(enum.StrEnum):
    """A kind of work with a Celery queue of its own, so that no kind waits behind another."""

    label_studio = "label-studio"
    training = "training"
    scoring = "scoring"


class Verdict(enum.StrEnum):
    """What became of a round's candidate; `initial`: nothing to train on yet; `restored`: a person chose an old one."""

    initial = "initial"
    promoted = "promoted"
    kept = "kept"
    restored = "restored"


class Trigger(enum.StrEnum):
    """Why a round was opened."""

    first = "first"
    annotations = "annotations"
    schedule = "schedule"
    request = "request"
    rollback = "rollback"


class Role(enum.StrEnum):
    """What a frozen annotation does in a round."""

    train = "train"
    held_out = "held_out"


class Arm(enum.StrEnum):
    """Why a task stands where it stands in the queue."""

    strategy = "strategy"
    random = "random"
    held_out = "held_out"


FINISHED = (RoundStatus.done, RoundStatus.failed, RoundStatus.cancelled)
_UNFINISHED_SQL = "status NOT IN ('done', 'failed', 'cancelled')"

# Where a round may go from where it is; any unfinished one may also fail or be cancelled. Triggers made by migration
# 0003 hold the database itself to it, whatever process writes.
MOVES = {
    RoundStatus.opened: RoundStatus.selected,
    RoundStatus.selected: RoundStatus.trained,
    RoundStatus.trained: RoundStatus.evaluated,
    RoundStatus.evaluated: RoundStatus.decided,
    RoundStatus.decided: RoundStatus.rescored,
    RoundStatus.rescored: RoundStatus.done,
}


def _words(kind: type[enum.StrEnum], name: str) -> Enum:
    # Plain VARCHAR + CHECK: adding a word later is one migration on both databases.
    return Enum(kind, name=name, native_enum=False, create_constraint=True, length=16, values_callable=_values)


def _values(kind: type[enum.StrEnum]) -> list[str]:
    return [word.value for word in kind]


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can speak of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime} | dict.fromkeys(
        (dict[str, Any], dict[str, str], dict[str, float], list[int]), JSON
    )


class Project(Base):
    """A connected Label Studio project."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(Text)
    label_config: Mapped[str] = mapped_column(Text)
    prompts: Mapped[dict[str, str]]  # label -> prompt
    group_field: Mapped[str] = mapped_column(String(200))  # key of task data that names the patient, video, volume
    prompt_field: Mapped[str] = mapped_column(String(200))  # key of task data that overrides the prompt of its task
    published_version: Mapped[str | None] = mapped_column(String(200))  # model_version that Label Studio serves
    reconciled_until: Mapped[datetime | None]  # changes up to here have been pulled
    reconciled_at: Mapped[datetime | None]  # when the last pull succeeded
    schedule: Mapped[str | None] = mapped_column(String(120))  # cron expression; None: as the settings say, "": never
    time_zone: Mapped[str | None] = mapped_column(String(64))  # of the schedule, such as Europe/Zurich
    held_out_share: Mapped[float | None]  # of its groups, as it was when the project was connected: it never moves
    overlapping: Mapped[bool] = mapped_column(default=True)  # whether one pixel may have several labels
    queue_problem: Mapped[str | None] = mapped_column(Text)  # how what Label Studio serves differs from the queue
    connected_at: Mapped[datetime]
    disconnected_at: Mapped[datetime | None]  # a lead took it out of our hands; its rows stay


class Task(Base):
    """One image to segment. `held_out` is drawn once, from the group's hash, and never changes."""

    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    image_url: Mapped[str] = mapped_column(Text)
    group_key: Mapped[str] = mapped_column(Text)
    prompt: Mapped[str | None] = mapped_column(Text)
    held_out: Mapped[bool]
    image_sha256: Mapped[str | None] = mapped_column(String(64))
    problem: Mapped[str | None] = mapped_column(Text)  # why rounds go on without this task
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Annotation(Base):
    """A person's answer. Never erased: `deleted_at` marks. A delete heard before its create has no task yet."""

    __tablename__ = "annotations"
    __table_args__ = (
        CheckConstraint("task_id IS NOT NULL OR deleted_at IS NOT NULL", name="task_or_deleted"),
        # What is new since a round is asked every few seconds.
        Index("ix_annotations_project_id_received_at", "project_id", "received_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    task_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"), index=True)
    completed_by: Mapped[int | None]
    lead_time_seconds: Mapped[float | None]
    parent_prediction: Mapped[int | None]  # Label Studio's id of the pre-annotation it started from
    skipped: Mapped[bool]
    problem: Mapped[str | None] = mapped_column(Text)  # why its masks cannot be used
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Effort(Base):
    """What an annotation cost and what its pre-annotation was worth: one row for each, once both can be compared."""

    __tablename__ = "efforts"
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True, autoincrement=False)
    updated_at: Mapped[datetime]  # of the annotation that was compared: an edited one is compared anew
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"), index=True)  # whose queue it came from
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))  # whose pre-annotation it was
    accepted: Mapped[bool | None]  # submitted as it was; None without a pre-annotation
    dice: Mapped[dict[str, float] | None]  # label -> Dice of pre-annotation and answer; None without one
    measured_at: Mapped[datetime]


class Mask(Base):
    """One label's mask of an annotation; an empty mask says that the label is not in the image."""

    __tablename__ = "masks"
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True)
    label: Mapped[str] = mapped_column(Text, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))


class ModelVersion(Base):
    """Immutable weights and what is known of them. At most one serves a project."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index(
            "uq_model_versions_serving",
            "project_id",
            unique=True,
            sqlite_where=text("serving"),
            postgresql_where=text("serving"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    checkpoint_sha256: Mapped[str] = mapped_column(String(64))
    card: Mapped[dict[str, Any]]
    serving: Mapped[bool]
    created_at: Mapped[datetime]
    pruned_at: Mapped[datetime | None]  # when its checkpoint was removed to make room


class Round(Base):
    """Train, evaluate, promote, rescore, publish. One unfinished round per project."""

    __tablename__ = "rounds"
    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index(
            "uq_rounds_unfinished",
            "project_id",
            unique=True,
            sqlite_where=text(_UNFINISHED_SQL),
            postgresql_where=text(_UNFINISHED_SQL),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int]
    status: Mapped[RoundStatus] = mapped_column(_words(RoundStatus, "status"))
    trigger: Mapped[Trigger] = mapped_column(_words(Trigger, "trigger"))
    verdict: Mapped[Verdict | None] = mapped_column(_words(Verdict, "verdict"))
    strategy: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int]
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    incumbent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    evaluation: Mapped[dict[str, Any] | None]  # candidate and incumbent on the same held-out items, and the interval
    left_out: Mapped[dict[str, str] | None]  # task id, or "annotation N" -> why it was left out
    published_version: Mapped[str | None] = mapped_column(String(200))
    claim: Mapped[str | None] = mapped_column(String(64))  # who runs it: host, process and a number drawn once
    lease_until: Mapped[float | None] = mapped_column(Double)  # nobody else may claim it before; the database's clock
    attempts: Mapped[int]  # crashes since the last finished step
    hand_backs: Mapped[int] = mapped_column(default=0)  # in a row, for reasons that were not the round's own
    selected_at: Mapped[datetime | None]  # annotations received before it were looked at
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    opened_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class RoundItem(Base):
    """Provenance: which mask of which annotation a round trained or evaluated on. Frozen when the round selects."""

    __tablename__ = "round_items"
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True)
    label: Mapped[str] = mapped_column(Text, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    role: Mapped[Role] = mapped_column(_words(Role, "role"))
    image_sha256: Mapped[str] = mapped_column(String(64))
    mask_sha256: Mapped[str] = mapped_column(String(64))
    prompt: Mapped[str] = mapped_column(Text)
    # A mask made of several people's: annotation id -> sha256 of its mask; None: it is the annotation's own.
    sources: Mapped[dict[str, str] | None]


class Shard(Base):
    """Some tasks of a round's rescoring: what one process of one machine takes at a time."""

    __tablename__ = "shards"
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    task_ids: Mapped[list[int]]
    claim: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(default=0)
    done: Mapped[bool] = mapped_column(default=False)


class Worker(Base):
    """A running worker process, as it last said of itself."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)  # host and process
    lanes: Mapped[str] = mapped_column(String(200))
    device: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime]
    seen: Mapped[float] = mapped_column(Double)  # seconds since the epoch, the database's clock


class Prediction(Base):
    """The model's answer for one task by one model version, kept as the JSON that Label Studio gets."""

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("task_id", "model_version_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    regions_json: Mapped[str] = mapped_column(Text)
    score: Mapped[float | None]  # entropy, higher = ask sooner; None: made in one pass for who waited, not ranked
    mutual_information: Mapped[float | None]  # the same of the draws' mutual information (BALD)
    stratum: Mapped[str | None] = mapped_column(Text)  # the label whose score it is; "": the model predicts nothing
    embedding: Mapped[bytes] = mapped_column(LargeBinary)  # (D,) float32, L2-normalised
    created_at: Mapped[datetime]


class Publication(Base):
    """How far the publication of a round's queue has come: whoever goes on after a crash sends nothing twice.

    Ranks below `sent` are in Label Studio for certain; those from there to below `sending` were in a request whose
    answer nobody may have heard.
    """

    __tablename__ = "publications"
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))  # model_version in Label Studio; no other attempt ever has it
    attempt: Mapped[int]  # names taken so far
    sent: Mapped[int] = mapped_column(default=0)
    sending: Mapped[int] = mapped_column(default=0)
    triage: Mapped[dict[str, Any] | None]  # what its pre-annotations were judged by, or why they were not


class Query(Base):
    """The ranked pool of one round: rank 0 is served first."""

    __tablename__ = "queries"
    __table_args__ = (UniqueConstraint("round_id", "task_id"),)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    score: Mapped[float | None]
    arm: Mapped[Arm] = mapped_column(_words(Arm, "arm"))
    dice_bound: Mapped[float | None] = mapped_column(Double)  # of its pre-annotation, from below; None: unknown


class Suspicion(Base):
    """An annotation's label that a model which never saw it finds wrong; rank 0 is the likeliest error."""

    __tablename__ = "suspicions"
    __table_args__ = (
        UniqueConstraint("project_id", "rank"),
        UniqueConstraint("annotation_id", "label"),
        CheckConstraint("score >= 0 AND score <= 1", name="score_in_range"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"))
    label: Mapped[str] = mapped_column(Text)
    rank: Mapped[int]
    score: Mapped[float] = mapped_column(Double)  # in [0, 1]; higher: likelier an error
    evidence: Mapped[dict[str, Any]]  # Dice with the model, what that usually is, in which fold
    found_at: Mapped[datetime]
