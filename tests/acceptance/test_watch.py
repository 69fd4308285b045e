"""Somebody changes what Label Studio serves: the next reconciliation says so, and says when it is gone."""

from contextlib import contextmanager

import httpx

from backend.store import projects


def test_a_drift_and_a_shuffle_each_raise_an_alarm_at_the_next_reconciliation(running, travelled):
    running.wait_for("rounds to end", lambda: running.last_round().finished)  # while one publishes nobody looks
    path = f"/api/projects/{running.project.id}/"
    published, last = running.label_studio(path)["model_version"], running.queue()[-1]["task_id"]
    predictions = running.label_studio("/api/predictions/", task=last)
    (there,) = [prediction for prediction in predictions if prediction["model_version"] == published]

    with changed(running, path, model_version=""):
        assert "model_version is ''" in problem_after_a_reconciliation(running)
        assert gauge(running) == 1
    with changed(running, f"/api/predictions/{there['id']}/", score=0.001):
        assert f"serves task {last}" in problem_after_a_reconciliation(running)
    assert problem_after_a_reconciliation(running) is None
    assert gauge(running) == 0


@contextmanager
def changed(running, path, **values):
    """Something of Label Studio's is another for as long as this lasts."""
    before = running.label_studio(path)
    running.http.patch(path, json=values).raise_for_status()
    try:
        yield
    finally:
        again = {name: before[name] for name in values}
        running.http.patch(path, json=again).raise_for_status()


def problem_after_a_reconciliation(running):
    """What Wardround says of the served order once a reconciliation has looked at it that began to look after now.

    Reconciliations of a project wait for each other, and pull before they look. The first pull seen from now on may
    follow a look that was over already; before the second one is, the look in between is over, and it began after now.
    """
    for _ in range(2):
        before = project(running).reconciled_at
        running.wait_for("a reconciliation", lambda before=before: project(running).reconciled_at != before)
    return project(running).queue_problem


def project(running):
    with running.store.read() as s:
        return projects.get(s, running.project.id)


def gauge(running):
    """What a monitor is told of the project's queue."""
    headers = {"Authorization": f"Bearer {running.product.api_token}"}
    told = httpx.get(f"{running.product.url}/metrics", headers=headers, timeout=60.0).raise_for_status().text
    (line,) = [line for line in told.splitlines() if line.startswith("wardround_queue_problem{")]
    return float(line.split()[-1])
