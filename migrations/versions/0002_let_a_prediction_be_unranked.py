"""Let a prediction be without a score: made in one pass for an annotator who waits, not ranked yet.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("predictions") as table:
        table.alter_column("score", existing_type=sa.Float(), nullable=True)


def downgrade() -> None:
    # What was never ranked is computed again when it is asked for.
    op.execute("DELETE FROM predictions WHERE score IS NULL")
    with op.batch_alter_table("predictions") as table:
        table.alter_column("score", existing_type=sa.Float(), nullable=False)
