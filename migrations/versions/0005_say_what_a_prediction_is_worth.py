"""Say what a prediction is worth: its stratum, a lower bound on its Dice; and which annotations are likely errors.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("predictions") as table:
        table.add_column(sa.Column("stratum", sa.Text()))
    with op.batch_alter_table("queries") as table:
        table.add_column(sa.Column("dice_bound", sa.Double()))
    with op.batch_alter_table("publications") as table:
        table.add_column(sa.Column("triage", sa.JSON()))
    op.create_table(
        "suspicions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("score >= 0 AND score <= 1", name="ck_suspicions_score_in_range"),
        sa.PrimaryKeyConstraint("id", name="pk_suspicions"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_suspicions_project_id"),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_suspicions_annotation_id"),
        sa.UniqueConstraint("project_id", "rank", name="uq_suspicions_project_id"),
        sa.UniqueConstraint("annotation_id", "label", name="uq_suspicions_annotation_id"),
    )


def downgrade() -> None:
    op.drop_table("suspicions")
    with op.batch_alter_table("publications") as table:
        table.drop_column("triage")
    with op.batch_alter_table("queries") as table:
        table.drop_column("dice_bound")
    with op.batch_alter_table("predictions") as table:
        table.drop_column("stratum")
