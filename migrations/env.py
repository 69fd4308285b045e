"""Alembic's entry: runs the history on the connection that `backend.store` hands over."""

from alembic import context

from backend.tables import Base


def run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        # SQLite reports `server_default=""` as a difference that is none.
        compare_server_default=connection.dialect.name == "postgresql",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
