"""The schema on a *migrated* database, SQLite and PostgreSQL: what alembic's comparison does not see is tried out."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from backend.errors import SchemaTooNew
from backend.store import Session, Store
from backend.tables import FINISHED, MOVES, Arm, Base, Mask, Query, Round, RoundStatus, Trigger, Verdict
from tests.backend.rows import NOW, SHA256, a_round, annotation, fill, prediction, project, suspicion, task, version

ROOT = Path(__file__).resolve().parents[1]
TABLES = set(Base.metadata.tables)


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database in which nothing has been done yet."""
    url = f"sqlite:///{tmp_path / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = Store(url)
    _drop_all(store)
    yield store
    _drop_all(store)
    store.close()


def _drop_all(store: Store) -> None:
    with store.begin() as s:
        Base.metadata.drop_all(s.connection())
        s.execute(text("DROP TABLE IF EXISTS alembic_version"))


@pytest.fixture
def store(empty: Store) -> Store:
    """A migrated database with one row in each table."""
    empty.migrate()
    with empty.begin() as s:
        fill(s)
    return empty


def counts(store: Store) -> dict[str, int]:
    with store.read() as s:
        return {name: len(s.execute(select(table)).all()) for name, table in Base.metadata.tables.items()}


def there(store: Store) -> set[str]:
    return set(inspect(store.engine).get_table_names()) - {"alembic_version"}


def refused(store: Store, *rows: Base) -> None:
    """The database itself refuses the last of the rows; the others are welcome."""
    with store.begin() as s:
        for row in rows[:-1]:
            s.add(row)
            s.flush()
    with pytest.raises(IntegrityError), store.begin() as s:
        s.add(rows[-1])


# ------------------------------------------------------------------------------------------------- up and down


def test_there_is_one_history_with_one_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert len(script.get_heads()) == 1
    files = {path.stem.partition("_")[0] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py")}
    assert {step.revision for step in script.walk_revisions()} == files


def test_the_migrated_schema_is_the_one_in_the_tables(store: Store) -> None:
    store.check()
    assert there(store) == TABLES


def test_up_down_and_up_again_with_data_in_the_tables(store: Store) -> None:
    store.migrate("base")
    assert there(store) == set()
    store.migrate()
    store.check()
    assert counts(store) == dict.fromkeys(TABLES, 0)
    with store.begin() as s:
        fill(s)
    assert counts(store) == dict.fromkeys(TABLES, 1)


def test_migrating_again_changes_nothing(store: Store) -> None:
    for _ in range(2):
        store.migrate()
    assert counts(store) == dict.fromkeys(TABLES, 1)


def test_a_database_of_a_newer_version_is_refused_untouched(store: Store) -> None:
    with store.begin() as s:
        s.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for revision in ("head", "base"):
        with pytest.raises(SchemaTooNew, match="9999"):
            store.migrate(revision)
    assert counts(store) == dict.fromkeys(TABLES, 1)


MIGRATE_ON_A_SIGN = """
import sys, time
from pathlib import Path
from backend.store import Store
store = Store(sys.argv[1])
Path(sys.argv[3]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
store.migrate()
"""


def test_four_processes_that_migrate_at_once_all_succeed(empty: Store, tmp_path: Path) -> None:
    url, go = empty.url.render_as_string(hide_password=False), tmp_path / "go"
    ready = [tmp_path / f"ready-{n}" for n in range(4)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE_ON_A_SIGN, url, str(go), str(sign)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for sign in ready
    ]  # fmt: skip
    while not all(sign.exists() for sign in ready) and all(process.poll() is None for process in started):
        time.sleep(0.01)
    go.touch()
    complaints = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, complaints
    empty.check()
    assert there(empty) == TABLES


# ------------------------------------------------------------------------------------------------- constraints


@pytest.mark.parametrize("before", [RoundStatus.opened, RoundStatus.rescored, *FINISHED])
def test_a_project_has_one_unfinished_round(migrated: Store, before: RoundStatus) -> None:
    _with_project(migrated)
    for number, status in enumerate(RoundStatus):
        with migrated.engine.connect() as connection, Session(connection) as s:
            s.add(a_round(number=100, status=before))
            s.flush()
            s.add(a_round(number=number, status=status))
            if before in FINISHED or status in FINISHED:
                s.flush()
            else:
                with pytest.raises(IntegrityError):
                    s.flush()


def test_rounds_of_two_projects_run_side_by_side(migrated: Store) -> None:
    _with_project(migrated)
    with migrated.begin() as s:
        s.add(project(id=2))
        s.flush()
        s.add_all([a_round(project_id=n, status=RoundStatus.opened) for n in (1, 2)])


@pytest.mark.parametrize("ending", FINISHED)
def test_a_round_that_ends_makes_room_and_cannot_begin_again(migrated: Store, ending: RoundStatus) -> None:
    _with_project(migrated)
    with migrated.begin() as s:
        s.add(a_round(id=1, number=1, status=RoundStatus.rescored))
    with pytest.raises(IntegrityError), migrated.begin() as s:
        s.add(a_round(id=2, number=2, status=RoundStatus.opened))
    with migrated.begin() as s:
        s.execute(text("UPDATE rounds SET status = :to WHERE id = 1"), {"to": ending.value})
        s.add(a_round(id=2, number=2, status=RoundStatus.opened))
    for again in RoundStatus:
        if again is not ending:
            with pytest.raises(IntegrityError), migrated.begin() as s:
                s.execute(text("UPDATE rounds SET status = :to WHERE id = 1"), {"to": again.value})


@pytest.mark.parametrize("came_from", list(RoundStatus))
def test_a_round_moves_only_as_rounds_do(migrated: Store, came_from: RoundStatus) -> None:
    """Whatever process writes, with whatever code: the database refuses."""
    _with_project(migrated)
    legal = {came_from}
    if came_from not in FINISHED:
        legal |= {MOVES[came_from], RoundStatus.failed, RoundStatus.cancelled}
    for number, to in enumerate(RoundStatus):
        with migrated.begin() as s:
            s.execute(text("DELETE FROM rounds"))
            s.add(a_round(id=1, number=number, status=came_from))
        try:
            with migrated.begin() as s:
                s.execute(text("UPDATE rounds SET status = :to WHERE id = 1"), {"to": to.value})
            moved = True
        except IntegrityError:
            moved = False
        assert moved == (to in legal), f"{came_from} to {to}"


def test_what_the_older_schema_cannot_say_becomes_the_nearest_that_it_can(store: Store) -> None:
    with store.begin() as s:
        s.add(a_round(number=1, status=RoundStatus.cancelled, trigger=Trigger.rollback, verdict=Verdict.restored))
    store.migrate("0002")
    with store.begin() as s:
        told = s.execute(text('SELECT status, "trigger", verdict, error FROM rounds ORDER BY number')).all()
    assert [tuple(row) for row in told] == [
        ("done", "first", "promoted", None), ("failed", "request", "promoted", "it was cancelled"),
    ]  # fmt: skip
    store.migrate()
    store.check()
    assert counts(store) == dict.fromkeys(TABLES, 1) | {
        "efforts": 0,
        "publications": 0,
        "rounds": 2,
        "shards": 0,
        "suspicions": 0,
        "workers": 0,
    }


def test_one_version_serves_a_project(migrated: Store) -> None:
    _with_project(migrated)
    with migrated.begin() as s:
        s.add(project(id=2))
        s.flush()
        s.add_all([version(project_id=2, serving=True), version(number=2), version(number=3)])
    refused(migrated, version(number=4, serving=True), version(number=5, serving=True))


@pytest.mark.parametrize(
    ("table", "column"),
    [("rounds", "status"), ("rounds", "trigger"), ("rounds", "verdict"), ("round_items", "role"), ("queries", "arm")],
)
def test_a_word_that_the_schema_does_not_know_is_refused(store: Store, table: str, column: str) -> None:
    for word in ("bogus", "", "DONE", "Train"):
        with pytest.raises(IntegrityError), store.begin() as s:
            s.execute(text(f'UPDATE {table} SET "{column}" = :word'), {"word": word})  # noqa: S608


def test_an_annotation_has_a_task_unless_it_is_a_tombstone(migrated: Store) -> None:
    _with_project(migrated)
    refused(migrated, annotation(id=1, task_id=None, deleted_at=NOW), annotation(id=2, task_id=None))
    with pytest.raises(IntegrityError), migrated.begin() as s:
        s.execute(text("UPDATE annotations SET deleted_at = NULL"))


def test_a_version_predicts_a_task_once(store: Store) -> None:
    refused(store, task(id=2), version(number=2), prediction(task_id=2), prediction(model_version_id=2), prediction())


def test_numbers_and_ranks_are_given_once(store: Store) -> None:
    refused(store, a_round(number=0))
    refused(store, version(number=1))
    refused(store, task(id=2), Query(round_id=1, rank=0, task_id=2, arm=Arm.random))
    refused(store, Query(round_id=1, rank=1, task_id=1, arm=Arm.random))
    refused(store, annotation(id=2), suspicion(annotation_id=2))
    refused(store, suspicion(rank=1))


@pytest.mark.parametrize("score", [-0.01, 1.01])
def test_a_suspicion_is_a_share(store: Store, score: float) -> None:
    refused(store, annotation(id=2), suspicion(annotation_id=2, rank=1, score=score))


@pytest.mark.parametrize(
    "orphan",
    [
        lambda: task(id=2, project_id=9),
        lambda: annotation(id=2, task_id=9),
        lambda: Mask(annotation_id=9, label="Lesion", sha256=SHA256),
        lambda: prediction(task_id=9),
        lambda: a_round(number=9, candidate_id=9),
    ],
)
def test_nothing_speaks_of_what_is_not_there(store: Store, orphan: Any) -> None:
    refused(store, orphan())


@pytest.mark.parametrize("table", ["projects", "tasks", "annotations", "model_versions", "rounds"])
def test_what_is_spoken_of_stays(store: Store, table: str) -> None:
    with pytest.raises(IntegrityError), store.begin() as s:
        s.execute(text(f"DELETE FROM {table}"))  # noqa: S608


@pytest.fixture
def migrated(empty: Store) -> Store:
    empty.migrate()
    return empty


def _with_project(store: Store) -> None:
    with store.begin() as s:
        s.add(project())


# ------------------------------------------------------------------------------------------- what SQLite needs

only_sqlite = pytest.mark.parametrize("empty", ["sqlite"], indirect=True)


@only_sqlite
def test_foreign_keys_are_on_after_migrating_in_every_connection(migrated: Store) -> None:
    with migrated.read() as first, migrated.read() as second, migrated.read() as third:
        assert [s.scalar(text("PRAGMA foreign_keys")) for s in (first, second, third)] == [1, 1, 1]


@only_sqlite
def test_foreign_keys_are_on_after_a_migration_that_failed(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Config, _revision: str) -> None:
        config.attributes["connection"].exec_driver_sql("CREATE TABLE half_done (id INTEGER)")
        raise ZeroDivisionError("a bug in a migration")

    monkeypatch.setattr(command, "upgrade", fail)
    with pytest.raises(ZeroDivisionError):
        empty.migrate()
    monkeypatch.undo()
    with empty.read() as s:
        assert s.scalar(text("PRAGMA foreign_keys")) == 1
    assert there(empty) == set()
    empty.migrate()
    refused(empty, task(project_id=9))


@only_sqlite
def test_threads_that_read_and_then_write_lose_no_update(store: Store) -> None:
    n_threads, n_updates = 4, 40

    def count_up() -> None:
        for _ in range(n_updates):
            with store.begin() as s:
                row = s.get(Round, 1)
                assert row is not None
                row.attempts += 1

    threads = [threading.Thread(target=count_up) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as s:
        assert s.scalar(select(Round.attempts)) == n_threads * n_updates


@only_sqlite
def test_a_reader_neither_waits_for_a_writer_nor_stops_one(store: Store) -> None:
    with store.read() as reader:
        assert reader.scalar(select(Round.attempts)) == 0
        with store.begin() as writer:
            writer.execute(text("UPDATE rounds SET attempts = 7"))
            assert reader.scalar(select(Round.attempts)) == 0
        assert reader.scalar(select(Round.attempts)) == 0, "a transaction sees one state from its first look on"
    with store.read() as later:
        assert later.scalar(select(Round.attempts)) == 7
