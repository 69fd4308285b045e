"""Create the first tables.

Revision: 0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out, not imported: a migration must not change when the code does.
MOMENT = sa.DateTime(timezone=True)
STATUSES = ("opened", "selected", "trained", "evaluated", "decided", "rescored", "done", "failed")
UNFINISHED = sa.text("status NOT IN ('done', 'failed')")
SERVING = sa.text("serving")


def upgrade() -> None:
    _create_projects_and_tasks()
    _create_annotations()
    _create_model_versions()
    _create_rounds()
    _create_predictions_and_queries()


def downgrade() -> None:
    for table in (
        "queries", "predictions", "round_items", "rounds", "model_versions",
        "masks", "annotations", "tasks", "projects",
    ):  # fmt: skip
        op.drop_table(table)


def _words(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def _create_projects_and_tasks() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("label_config", sa.Text(), nullable=False),
        sa.Column("prompts", sa.JSON(), nullable=False),
        sa.Column("group_field", sa.String(200), nullable=False),
        sa.Column("prompt_field", sa.String(200), nullable=False),
        sa.Column("published_version", sa.String(200)),
        sa.Column("reconciled_until", MOMENT),
        sa.Column("connected_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_url", sa.Text(), nullable=False),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text()),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("image_sha256", sa.String(64)),
        sa.Column("problem", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_tasks_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_project_id"), "tasks", ["project_id"])


def _create_annotations() -> None:
    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer()),
        sa.Column("completed_by", sa.Integer()),
        sa.Column("lead_time_seconds", sa.Double()),
        sa.Column("parent_prediction", sa.Integer()),
        sa.Column("skipped", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("created_at", MOMENT),
        sa.Column("updated_at", MOMENT),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
        sa.CheckConstraint(
            "task_id IS NOT NULL OR deleted_at IS NOT NULL", name=op.f("ck_annotations_task_or_deleted")
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_annotations_project_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_annotations_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
    )
    op.create_index(op.f("ix_annotations_project_id"), "annotations", ["project_id"])
    op.create_index(op.f("ix_annotations_task_id"), "annotations", ["task_id"])
    op.create_table(
        "masks",
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name=op.f("fk_masks_annotation_id")),
        sa.PrimaryKeyConstraint("annotation_id", "label", name=op.f("pk_masks")),
    )


def _create_model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("checkpoint_sha256", sa.String(64), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("serving", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["model_versions.id"], name=op.f("fk_model_versions_parent_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_versions_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_model_versions_project_id")),
    )
    op.create_index(
        "uq_model_versions_serving", "model_versions", ["project_id"],
        unique=True, sqlite_where=SERVING, postgresql_where=SERVING,
    )  # fmt: skip


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", _words("status", *STATUSES), nullable=False),
        sa.Column("trigger", _words("trigger", "first", "annotations", "schedule", "request"), nullable=False),
        sa.Column("verdict", _words("verdict", "initial", "promoted", "kept")),
        sa.Column("strategy", sa.String(64), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("candidate_id", sa.Integer()),
        sa.Column("incumbent_id", sa.Integer()),
        sa.Column("evaluation", sa.JSON()),
        sa.Column("left_out", sa.JSON()),
        sa.Column("published_version", sa.String(200)),
        sa.Column("claim", sa.String(64)),
        sa.Column("heartbeat_at", MOMENT),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON()),
        sa.Column("error", sa.Text()),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.ForeignKeyConstraint(["candidate_id"], ["model_versions.id"], name=op.f("fk_rounds_candidate_id")),
        sa.ForeignKeyConstraint(["incumbent_id"], ["model_versions.id"], name=op.f("fk_rounds_incumbent_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_rounds_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_rounds_project_id")),
    )
    op.create_index(
        "uq_rounds_unfinished", "rounds", ["project_id"],
        unique=True, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED,
    )  # fmt: skip
    op.create_table(
        "round_items",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("role", _words("role", "train", "held_out"), nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("mask_sha256", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name=op.f("fk_round_items_annotation_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_items_round_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_round_items_task_id")),
        sa.PrimaryKeyConstraint("round_id", "annotation_id", "label", name=op.f("pk_round_items")),
    )
    op.create_index(op.f("ix_round_items_task_id"), "round_items", ["task_id"])


def _create_predictions_and_queries() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("regions_json", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_predictions_model_version_id")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_predictions_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.UniqueConstraint("task_id", "model_version_id", name=op.f("uq_predictions_task_id")),
    )
    op.create_index(op.f("ix_predictions_model_version_id"), "predictions", ["model_version_id"])
    op.create_table(
        "queries",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("arm", _words("arm", "strategy", "random", "held_out"), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_queries_round_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_queries_task_id")),
        sa.PrimaryKeyConstraint("round_id", "rank", name=op.f("pk_queries")),
        sa.UniqueConstraint("round_id", "task_id", name=op.f("uq_queries_round_id")),
    )
