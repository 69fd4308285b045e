"""Know what Label Studio really serves, and keep a ledger of what annotations cost; a project can be disconnected.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("overlapping", sa.Boolean(), nullable=False, server_default=sa.true()))
        table.add_column(sa.Column("queue_problem", sa.Text()))
        table.add_column(sa.Column("disconnected_at", MOMENT))
    with op.batch_alter_table("projects") as table:
        table.alter_column("overlapping", existing_type=sa.Boolean(), server_default=None)
    op.create_table(
        "efforts",
        sa.Column("annotation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("round_id", sa.Integer()),
        sa.Column("model_version_id", sa.Integer()),
        sa.Column("accepted", sa.Boolean()),
        sa.Column("dice", sa.JSON()),
        sa.Column("measured_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("annotation_id", name="pk_efforts"),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_efforts_annotation_id"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_efforts_round_id"),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name="fk_efforts_model_version_id"),
    )
    op.create_index("ix_efforts_round_id", "efforts", ["round_id"])
    op.create_table(
        "publications",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("sending", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", name="pk_publications"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_publications_round_id"),
    )


def downgrade() -> None:
    op.drop_table("publications")
    op.drop_table("efforts")
    with op.batch_alter_table("projects") as table:
        table.drop_column("disconnected_at")
        table.drop_column("queue_problem")
        table.drop_column("overlapping")
