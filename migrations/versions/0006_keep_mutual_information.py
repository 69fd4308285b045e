"""Keep the mutual information of a prediction's draws, for strategies that rank by it.

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("predictions") as table:
        table.add_column(sa.Column("mutual_information", sa.Double()))


def downgrade() -> None:
    with op.batch_alter_table("predictions") as table:
        table.drop_column("mutual_information")
