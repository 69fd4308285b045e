"""Who may tell the product something, what a connected Label Studio looks like, and what no file says."""

import base64
import re
import subprocess
from datetime import UTC, datetime

import httpx
import pytest

HEADER = "X-Wardround-Secret"
UNHEARD_OF = 10**6  # an annotation id that Label Studio has not given to anybody


def event(running, answer, action="ANNOTATION_CREATED"):
    """What Label Studio would send about a second annotation of a task that has one."""
    now = datetime.now(UTC).isoformat()
    annotation = {"id": UNHEARD_OF, "task": answer.task_id, "created_at": now, "updated_at": now, "result": []}
    project = {"id": running.project.id, "label_config": ""}
    if action == "ANNOTATIONS_DELETED":
        return {"action": action, "annotations": [{"id": UNHEARD_OF}], "project": project}
    task = running.label_studio(f"/api/tasks/{answer.task_id}")
    return {"action": action, "annotation": annotation, "task": task, "project": project}


def tell(running, body, headers):
    return httpx.post(f"{running.product.url}/webhook", json=body, headers=headers, timeout=60.0).status_code


def test_an_event_without_our_secret_stores_nothing(running, travelled):
    body = event(running, travelled.answers[0])
    for headers in ({}, {HEADER: "guessed"}, {HEADER: ""}, {"Authorization": "Bearer guessed"}):
        assert tell(running, body, headers) == 401
        assert running.annotation(UNHEARD_OF) is None


def test_the_same_event_with_our_secret_is_stored(running, travelled):
    secret = {HEADER: running.product.webhook_secret}
    assert tell(running, event(running, travelled.answers[0]), secret) == 201
    assert running.annotation(UNHEARD_OF).deleted_at is None
    assert tell(running, event(running, travelled.answers[0], "ANNOTATIONS_DELETED"), secret) == 201
    assert running.annotation(UNHEARD_OF).deleted_at is not None


@pytest.mark.parametrize("path", ["/versions", "/api/projects/{}/rounds", "/api/projects/{}/queue", "/api/rounds/1"])
def test_nothing_is_read_without_the_token(running, path):
    url = running.product.url + path.format(running.project.id)
    assert httpx.get(url, timeout=60.0).status_code == 401
    assert httpx.get(url, auth=("wardround", "guessed"), timeout=60.0).status_code == 401
    assert httpx.get(url, auth=("wardround", running.product.api_token), timeout=60.0).status_code == 200


def test_nothing_is_predicted_or_started_without_the_token(running):
    for path in ("/setup", "/predict", f"/api/projects/{running.project.id}/rounds"):
        assert httpx.post(running.product.url + path, json={}, timeout=60.0).status_code == 401
    assert httpx.get(f"{running.product.url}/health", timeout=60.0).status_code == 200


def test_connecting_twice_leaves_one_backend_one_webhook_and_the_same_queue(running, travelled):
    project = f"/api/projects/{running.project.id}"
    before = running.label_studio(project), running.api(f"{project}/queue")
    running.product.connect(running.project.id, running.dataset.prompt)
    after = running.label_studio(project), running.api(f"{project}/queue")

    (backend,) = running.label_studio("/api/ml", project=running.project.id)
    assert (backend["url"], backend["state"], backend["auth_method"]) == (running.product.url, "CO", "BASIC_AUTH")
    # Label Studio makes a webhook of its own for every backend, without a secret: none of them is left.
    (webhook,) = running.label_studio("/api/webhooks/", project=running.project.id)
    assert webhook["url"] == f"{running.product.url}/webhook"
    assert webhook["headers"] == {HEADER: running.product.webhook_secret}
    assert (webhook["is_active"], webhook["send_payload"], webhook["send_for_all_actions"]) == (True, True, False)
    assert {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"} <= set(webhook["actions"])
    assert after[1] == before[1]
    for name in ("model_version", "sampling", "show_collab_predictions"):
        assert after[0][name] == before[0][name]
    assert after[0]["sampling"] == "Uncertainty sampling"


def test_the_webhook_still_works_after_connecting_again(running, travelled):
    running.kill("beat")  # so that nothing pulls
    try:
        (answer,) = running.annotator.work(1)
        running.wait_for("the annotation", lambda: running.annotation(answer.annotation_id))
    finally:
        running.start("beat")


def secrets_of(running):
    product, server = running.product, running.server
    basic = base64.b64encode(f"wardround:{product.api_token}".encode()).decode()
    return [product.api_token, product.webhook_secret, basic, server.pat(), server.token, server.password]


def content_of(path):
    """The bytes of a file; none when it is a message that was taken meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_no_file_of_ours_holds_a_secret(running, travelled):
    """Logs, database, messages: everything under the product's folder."""
    files = [path for path in running.product.folder.rglob("*") if path.is_file()]
    assert {"api.log", "worker.log", "beat.log", "wardround.db"} <= {path.name for path in files}
    for path in files:
        content = content_of(path)
        assert not [secret for secret in secrets_of(running) if secret.encode() in content], path
        assert not re.search(rb"eyJ[\w-]{10,}\.eyJ", content), f"{path} holds an access token"


def test_no_secret_is_logged_at_debug_level(running, travelled):
    """Connecting shows every secret to Label Studio; the most talkative log tells none of them."""
    done = subprocess.run(
        [running.product.command, "connect", str(running.project.id)],
        env=running.product.environment() | {"WARDROUND_LOG_LEVEL": "DEBUG"},
        cwd=running.product.folder, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "DEBUG" in said
    assert not [secret for secret in secrets_of(running) if secret in said]
    assert not re.search(r"eyJ[\w-]{10,}\.eyJ", said)
