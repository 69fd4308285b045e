"""Processes die: a round goes on where it was, and what was missed meanwhile is found."""

import pytest

from tests.acceptance.product import DEADLINE_SECONDS

pytestmark = pytest.mark.timeout(2 * DEADLINE_SECONDS)


def training(running, number):
    """Whether the round has taken training steps and still has some to take."""
    row = running.last_round()
    progress = row.progress or {}
    return (row.number, progress.get("step")) == (number, "train") and 0 < progress["done"] < progress["total"]


def test_a_round_outlives_its_worker(running, travelled):
    running.wait_for("other rounds to end", lambda: running.last_round().finished)
    annotations = running.annotation_ids()
    number = running.last_round().number + 1
    running.product.run("rounds", "start", str(running.project.id))
    running.wait_for(f"round {number} to train", lambda: training(running, number))
    running.kill("worker")
    assert running.last_round().status == "selected", "the round was over before the worker was killed"
    running.start("worker")

    finished = running.finished_round(number)
    assert (finished.status, finished.error) == ("done", None)
    assert finished.verdict in {"promoted", "kept"}
    rows = running.product.rounds(running.project.id)
    assert [row.number for row in rows] == list(range(number + 1))
    assert running.annotation_ids() == annotations
    assert finished.n_labels + finished.n_held_out == len(annotations)


def test_after_the_crash_the_loop_goes_on(running, travelled):
    """No prediction was pushed twice or forgotten, and the new queue is served."""
    published = running.api(f"/api/projects/{running.project.id}/rounds")[-1]["published_version"]
    # A task that was served before the round stays with the annotator; the one after it is of the new queue.
    (answer,) = running.annotator.work(1)
    running.wait_for("the annotation", lambda: running.annotation(answer.annotation_id))
    task = running.annotator.next_task()
    assert task["id"] == running.head()
    assert [prediction["model_version"] for prediction in task["predictions"]] == [published]


def test_what_a_dead_api_missed_is_pulled(running, travelled):
    running.kill("api")
    try:
        (answer,) = running.annotator.work(1)
        row = running.wait_for("the annotation", lambda: running.annotation(answer.annotation_id))
    finally:
        running.start("api")
    assert (row.task_id, row.parent_prediction) == (answer.task_id, answer.parent_prediction)
    assert row.lead_time_seconds == answer.lead_time_seconds
