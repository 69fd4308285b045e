"""Make rounds survive: leases by the database's clock, legal moves only, shards of a rescoring, workers, schedules.

Revision: 0003, after 0002.
"""

from itertools import pairwise

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
BEFORE = {
    "status": ("opened", "selected", "trained", "evaluated", "decided", "rescored", "done", "failed"),
    "trigger": ("first", "annotations", "schedule", "request"),
    "verdict": ("initial", "promoted", "kept"),
}
AFTER = {
    "status": (*BEFORE["status"], "cancelled"),
    "trigger": (*BEFORE["trigger"], "rollback"),
    "verdict": (*BEFORE["verdict"], "restored"),
}
UNFINISHED_BEFORE = "status NOT IN ('done', 'failed')"
UNFINISHED_AFTER = "status NOT IN ('done', 'failed', 'cancelled')"
MOVES = ("opened", "selected", "trained", "evaluated", "decided", "rescored", "done")
ILLEGAL = "a round cannot move like that"


def upgrade() -> None:
    _change_words(BEFORE, AFTER, UNFINISHED_AFTER)
    with op.batch_alter_table("rounds") as table:
        table.add_column(sa.Column("lease_until", sa.Double()))
        table.add_column(sa.Column("hand_backs", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("selected_at", MOMENT))
        table.drop_column("heartbeat_at")
    # Rounds that selected before this was written down: what had come by their opening they have seen.
    op.execute("UPDATE rounds SET selected_at = opened_at WHERE id IN (SELECT round_id FROM round_items)")
    with op.batch_alter_table("rounds") as table:
        table.alter_column("hand_backs", existing_type=sa.Integer(), server_default=None)
    _create_trigger()
    _change_other_tables()
    _create_shards_and_workers()


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_table("shards")
    _drop_trigger()
    _change_other_tables_back()
    # Words the older schema does not know become the nearest that it does.
    op.execute(
        "UPDATE rounds SET error = coalesce(error, 'it was cancelled'), status = 'failed' WHERE status = 'cancelled'"
    )
    op.execute("UPDATE rounds SET \"trigger\" = 'request' WHERE \"trigger\" = 'rollback'")
    op.execute("UPDATE rounds SET verdict = 'promoted' WHERE verdict = 'restored'")
    _change_words(AFTER, BEFORE, UNFINISHED_BEFORE)
    with op.batch_alter_table("rounds") as table:
        table.add_column(sa.Column("heartbeat_at", MOMENT))
        for column in ("lease_until", "hand_backs", "selected_at"):
            table.drop_column(column)


def _change_words(old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]], unfinished: str) -> None:
    op.drop_index("uq_rounds_unfinished", "rounds")
    with op.batch_alter_table("rounds") as table:
        for column in old:
            table.drop_constraint(op.f(f"ck_rounds_{column}"), type_="check")
            words = ", ".join(f"'{word}'" for word in new[column])
            table.create_check_constraint(op.f(f"ck_rounds_{column}"), f'"{column}" IN ({words})')
    where = sa.text(unfinished)
    op.create_index(
        "uq_rounds_unfinished", "rounds", ["project_id"], unique=True, sqlite_where=where, postgresql_where=where
    )


def _create_trigger() -> None:
    forward = [f"(OLD.status = '{here}' AND NEW.status = '{there}')" for here, there in pairwise(MOVES)]
    stopped = "(OLD.status NOT IN ('done', 'failed', 'cancelled') AND NEW.status IN ('failed', 'cancelled'))"
    legal = " OR ".join(["OLD.status = NEW.status", *forward, stopped])
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER rounds_move_legally BEFORE UPDATE OF status ON rounds WHEN NOT ({legal}) "
            f"BEGIN SELECT RAISE(ABORT, '{ILLEGAL}'); END"
        )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_illegal_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION '{ILLEGAL}: % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER rounds_move_legally BEFORE UPDATE ON rounds FOR EACH ROW WHEN (NOT ({legal})) "
        "EXECUTE FUNCTION refuse_illegal_move()"
    )


def _drop_trigger() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER rounds_move_legally")
        return
    op.execute("DROP TRIGGER rounds_move_legally ON rounds")
    op.execute("DROP FUNCTION refuse_illegal_move()")


def _change_other_tables() -> None:
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("reconciled_at", MOMENT))
        table.add_column(sa.Column("schedule", sa.String(120)))
        table.add_column(sa.Column("time_zone", sa.String(64)))
        table.add_column(sa.Column("held_out_share", sa.Double()))
    with op.batch_alter_table("model_versions") as table:
        table.add_column(sa.Column("pruned_at", MOMENT))
    with op.batch_alter_table("round_items") as table:
        table.add_column(sa.Column("sources", sa.JSON()))
        table.alter_column("label", existing_type=sa.String(200), type_=sa.Text())
    with op.batch_alter_table("masks") as table:
        table.alter_column("label", existing_type=sa.String(200), type_=sa.Text())
    op.create_index("ix_annotations_project_id_received_at", "annotations", ["project_id", "received_at"])
    op.drop_index("ix_annotations_project_id", "annotations")


def _change_other_tables_back() -> None:
    op.create_index("ix_annotations_project_id", "annotations", ["project_id"])
    op.drop_index("ix_annotations_project_id_received_at", "annotations")
    for name, column in (("masks", None), ("round_items", "sources")):
        with op.batch_alter_table(name) as table:
            if column:
                table.drop_column(column)
            # PostgreSQL refuses a label that is too long: shortening it could make two labels one.
            table.alter_column("label", existing_type=sa.Text(), type_=sa.String(200))
    with op.batch_alter_table("model_versions") as table:
        table.drop_column("pruned_at")
    with op.batch_alter_table("projects") as table:
        for column in ("reconciled_at", "schedule", "time_zone", "held_out_share"):
            table.drop_column(column)


def _create_shards_and_workers() -> None:
    op.create_table(
        "shards",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("task_ids", sa.JSON(), nullable=False),
        sa.Column("claim", sa.String(64)),
        sa.Column("lease_until", sa.Double()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_shards_round_id")),
        sa.PrimaryKeyConstraint("round_id", "number", name=op.f("pk_shards")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("lanes", sa.String(200), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
