"""Each silent misconfiguration, planted in a real Label Studio: the doctor sees it, and cures what is ours to cure."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from backend import connect as connecting
from backend import doctor, rounds
from backend.context import Context
from backend.disconnect import disconnect
from backend.doctor import access
from backend.doctor import project as of_project
from backend.label_studio.client import LabelStudioClient
from backend.store import projects
from backend.wiring import SECRET_HEADER, webhook
from demo.processes import free_port
from tests.backend.label_studio.live import CONFIG_XML, RANKING, new_project, png, serve_next, sign_up, submit
from tests.backend.label_studio.product import pull, running, served

LEGACY_ONLY = "how long a closed browser keeps its task"  # what only a personal access token can ask


@pytest.fixture(scope="module")
def ctx(label_studio, client, tmp_path_factory) -> Iterator[Context]:
    """Wardround on a real Label Studio, its API running."""
    with running(client, label_studio.url, label_studio.token, tmp_path_factory.mktemp("doctor")) as ctx:
        yield ctx


@pytest.fixture(scope="module")
def project(ctx, person) -> int:
    """A healthy project: connected, its first queue published."""
    project_id = new_project(person)
    done = connecting.connect(ctx, project_id, {})
    assert done.tasks == len(RANKING) and done.round_id is not None
    assert rounds.run(ctx, done.round_id)
    return project_id


def codes(ctx: Context, project_id: int) -> list[str]:
    return [finding.code for finding in of_project.findings(ctx, project_id)]


def test_a_healthy_project_has_nothing_wrong_and_connecting_again_touches_nothing(ctx, person, project):
    found = doctor.examine(ctx, project)
    assert found.findings == []
    assert [what for what in found.unchecked if LEGACY_ONLY in what]
    before = everything(person, project)
    assert connecting.would_change(ctx, project, {}) == []
    assert connecting.connect(ctx, project, {}).changes == []
    assert everything(person, project) == before


def everything(person, project_id: int) -> list[Any]:
    """What Label Studio holds for a project; times of looking are not what it holds."""
    paths = ("/api/ml?project={}", "/api/webhooks/?project={}", "/api/dm/views/?project={}", "/api/projects/{}/")
    found = [person.get(path.format(project_id)).raise_for_status().json() for path in paths]
    for server in found[0]:
        server.pop("updated_at")
    return found


# --------------------------------------------------------------------------------- one project: planted, seen, cured


def setting(**values: Any) -> Callable[..., None]:
    def plant(ctx: Context, person: httpx.Client, project_id: int) -> None:
        ctx.label_studio.update_project(project_id, **values)

    return plant


def our_hook(**values: Any) -> Callable[..., None]:
    """Label Studio changes what is named, and forgets the actions that are not."""

    def plant(ctx: Context, person: httpx.Client, project_id: int) -> None:
        (hook,) = ctx.label_studio.webhooks(project_id)
        person.patch(f"/api/webhooks/{hook['id']}/", json=values).raise_for_status()

    return plant


def hook_lost(ctx, person, project_id):
    (hook,) = ctx.label_studio.webhooks(project_id)
    ctx.label_studio.delete_webhook(hook["id"])


def automatic_hook(ctx, person, project_id):
    ctx.label_studio.create_webhook(project_id, f"{ctx.settings.public_url}/webhook", {}, ["TASKS_CREATED"])


def second_hook(ctx, person, project_id):
    headers = {SECRET_HEADER: "the-webhook-secret"}
    ctx.label_studio.create_webhook(project_id, f"{ctx.settings.public_url}/webhook", headers, webhook.ACTIONS)


def second_backend(ctx, person, project_id):
    ctx.label_studio.create_ml_backend(project_id, ctx.settings.public_url, "Wardround", "wardround", "the-api-token")
    hooks = ctx.label_studio.webhooks(project_id)
    for hook in hooks[1:]:
        ctx.label_studio.delete_webhook(hook["id"])


def backend_lost(ctx, person, project_id):
    (server,) = ctx.label_studio.ml_backends(project_id)
    ctx.label_studio.delete_ml_backend(server["id"])


def backend_not_interactive(ctx, person, project_id):
    (server,) = ctx.label_studio.ml_backends(project_id)
    body = {
        "project": project_id, "url": ctx.settings.public_url, "title": "Wardround", "auth_method": "BASIC_AUTH",
        "basic_auth_user": "wardround", "basic_auth_pass": "the-api-token", "is_interactive": False,
    }  # fmt: skip
    person.patch(f"/api/ml/{server['id']}", json=body).raise_for_status()


def prediction_lost(ctx, person, project_id):
    task_id = ctx.label_studio.served_order(project_id)[1]
    (prediction,) = person.get("/api/predictions/", params={"task": task_id}).json()
    ctx.label_studio.delete_prediction(prediction["id"])


def predictions_gone(ctx, person, project_id):
    version = ctx.label_studio.project(project_id)["model_version"]
    ctx.label_studio.delete_model_version(project_id, version)


def prediction_twice(ctx, person, project_id):
    (task_id, *_), version = ctx.label_studio.served_order(project_id), published(ctx, project_id)
    again = {"task": task_id, "model_version": version, "score": 0.9, "result": []}
    person.post("/api/predictions/", json=again).raise_for_status()


def task_imported(ctx, person, project_id):
    files = [("file", ("late.png", png(99), "image/png"))]
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()


def tab_lost(ctx, person, project_id):
    first = ctx.label_studio.tabs(project_id)[0]
    ctx.label_studio.delete_tab(first["id"])


def tab_turned(ctx, person, project_id):
    tab = next(one for one in ctx.label_studio.tabs(project_id) if one["data"]["title"] == "Uncertainty queue")
    ctx.label_studio.update_tab(tab["id"], project_id, tab["data"] | {"ordering": ["-tasks:predictions_score"]})


def tab_twice(ctx, person, project_id):
    tab = next(one for one in ctx.label_studio.tabs(project_id) if one["data"]["title"] == "Uncertainty queue")
    ctx.label_studio.create_tab(project_id, tab["data"])


def published(ctx: Context, project_id: int) -> str | None:
    with ctx.store.read() as s:
        return projects.get(s, project_id).published_version


# Each is planted together with others that have nothing to do with it: Label Studio takes its time to answer.
PLANTED: list[dict[str, Callable[..., None]]] = [
    {
        "sampling": setting(sampling="Sequential sampling"),
        "predictions-retrieved": setting(evaluate_predictions_automatically=True),
        "trains-on-submit": setting(min_annotations_to_start_training=3),
        "backend-changed": backend_not_interactive,
        "webhook-secret": our_hook(headers={SECRET_HEADER: "another"}, actions=list(webhook.ACTIONS)),
        "predictions-duplicate": prediction_twice,
        "tab-changed": tab_turned,
    },
    {
        "webhook-missing": hook_lost,
        "backend-missing": backend_lost,
        "predictions-missing": prediction_lost,
        "tab-missing": tab_lost,
    },
    {
        "backend-duplicate": second_backend,
        "webhook-automatic": automatic_hook,
        "webhook-duplicate": second_hook,
        "predictions-gone": predictions_gone,
        "tab-duplicate": tab_twice,
    },
    {
        "webhook-elsewhere": our_hook(url="http://127.0.0.1:9/webhook", actions=list(webhook.ACTIONS)),
        "model-version": setting(model_version=""),
    },
    # What a Label Studio leaves half done that takes our address for model servers and refuses it for webhooks.
    {
        "webhook-missing": hook_lost,
        "model-version": setting(model_version="Wardround"),
    },
]


@pytest.mark.parametrize("planted", PLANTED, ids="+".join)
def test_what_was_planted_is_seen_and_cured(ctx, person, project, planted):
    order = ctx.label_studio.served_order(project)
    for plant in planted.values():
        plant(ctx, person, project)
    assert sorted(codes(ctx, project)) == sorted(planted)
    assert cure(ctx, project) == []
    assert ctx.label_studio.served_order(project) == order


def cure(ctx: Context, project_id: int) -> list[tuple[str, bool]]:
    """What `doctor --fix` does to one project, without looking at the rest; what is left, and whether it is curable."""
    for _ in range(3):
        found = of_project.findings(ctx, project_id)
        if not any(finding.fix for finding in found):
            break
        for finding in found:
            if finding.fix:
                finding.fix()
    return [(finding.code, finding.fixable) for finding in found]


def test_a_webhook_that_was_muted_is_heard_again_and_brings_what_comes_after_the_queue(ctx, person, project):
    # The classic: whoever changes anything of a webhook by API without naming its actions has muted it.
    our_hook(is_active=True)(ctx, person, project)
    # Hiding predictions takes the model version away as well.
    ctx.label_studio.update_project(project, show_collab_predictions=False)
    assert codes(ctx, project) == ["webhook-muted", "predictions-hidden", "model-version"]
    done = doctor.fix(ctx, project)
    assert (done.findings, done.failed) == ([], {})
    assert [finding.code for finding in done.fixed] == ["webhook-muted", "predictions-hidden", "model-version"]
    order, before = ctx.label_studio.served_order(project), known_tasks(ctx, project)
    task_imported(ctx, person, project)
    (imported,) = set(known_tasks(ctx, project)) - set(before)
    assert codes(ctx, project) == ["predictions-missing"]
    assert cure(ctx, project) == []
    assert ctx.label_studio.served_order(project) == [*order, imported]


def known_tasks(ctx: Context, project_id: int) -> list[int]:
    with ctx.store.read() as s:
        return [task.id for task in projects.all_tasks(s, project_id)]


# ------------------------------------------------------------------------------------------ one project: only people


def test_what_only_people_can_put_right_is_said_and_left_alone(ctx, project):
    ctx.label_studio.update_project(project, maximum_annotations=2)
    others = "Another", "wardround", "the-api-token"
    other = ctx.label_studio.create_ml_backend(project, ctx.settings.public_url, *others)["id"]
    assert cure(ctx, project) == [("backend-other", False), ("overlap", False)]
    ctx.label_studio.update_project(project, maximum_annotations=1)
    (ours,) = [one["id"] for one in ctx.label_studio.ml_backends(project) if one["title"] == "Wardround"]
    ctx.label_studio.delete_ml_backend(ours)
    assert cure(ctx, project) == [("backend-not-first", False)]
    ctx.label_studio.delete_ml_backend(other)


def test_what_is_not_there_or_not_connected_is_said(ctx, person):
    assert [finding.code for finding in doctor.examine(ctx, 10**6).findings] == ["project-missing"]
    stranger = person.post("/api/projects/", json={"title": "stranger", "label_config": "<View></View>"}).json()["id"]
    assert codes(ctx, stranger) == ["label-config", "not-connected"]


def test_a_difference_of_the_order_that_the_last_pull_saw_is_said(ctx, project):
    with ctx.store.begin() as s:
        projects.change(s, project, queue_problem="at place 3 Label Studio serves task 9, the queue says task 4")
    assert codes(ctx, project) == ["queue-problem"]
    with ctx.store.begin() as s:
        projects.change(s, project, queue_problem=None)


def test_random_tasks_for_several_project_members_show_in_the_answers(ctx, label_studio, person):
    """No API of Label Studio shows such rows, and none makes them: they are planted in its database."""
    project_id = new_project(person)
    more = [{"image": f"/data/upload/{project_id}/{number}.png"} for number in range(200)]
    person.post(f"/api/projects/{project_id}/import", json=more).raise_for_status()
    done = connecting.connect(ctx, project_id, {})
    assert done.round_id is not None and rounds.run(ctx, done.round_id)

    def codes_after_answers(n_answers: int) -> list[str]:
        for _ in range(n_answers):
            submit(person, serve_next(person, project_id)["id"])
        pull(ctx, project_id)
        return codes(ctx, project_id)

    assert codes_after_answers(9) == []
    with sign_up(label_studio.url, person):
        pass  # there are two people at least
    with closing(sqlite3.connect(label_studio.state_dir / "data" / "label_studio.sqlite3", timeout=60)) as there:
        with there:
            there.execute(
                "INSERT INTO projects_projectmember (user_id, project_id, enabled, created_at, updated_at) "
                "SELECT id, ?, 1, datetime('now'), datetime('now') FROM htx_user",
                (project_id,),
            )
        assert codes_after_answers(12) == ["answers-out-of-order"]
        with there:
            there.execute("DELETE FROM projects_projectmember WHERE project_id = ?", (project_id,))
    assert codes_after_answers(12) == []


# --------------------------------------------------------------------------------------------- the two services


def looked(ctx: Context, project_id: int, **changed: Any) -> list[str]:
    """What access says under other settings."""
    other = replace(ctx, settings=ctx.settings.model_copy(update=changed))
    return [finding.code for finding in access.look(other, [project_id]).findings]


def test_addresses_that_label_studio_does_not_take_are_said(ctx, project):
    # The server of the tests bans the addresses of cloud metadata, as it bans all local ones by default.
    assert looked(ctx, project, public_url="http://169.254.0.1:9") == ["address-blocked", "api-unreachable"]
    assert looked(ctx, project, public_url="http://wardround:9090") == [
        "public-url-single-label", "address-unknown", "api-unreachable",
    ]  # fmt: skip
    assert looked(ctx, project, public_url="http://wardround.invalid:9") == ["address-unknown", "api-unreachable"]
    assert len(ctx.label_studio.ml_backends(project)) == 1, "asking makes nothing"
    assert len(ctx.label_studio.webhooks(project)) == 1


def test_an_api_that_runs_with_other_secrets_is_said(ctx, project):
    assert looked(ctx, project, api_token=SecretStr("other")) == ["api-token-differs"]
    assert looked(ctx, project, webhook_secret=SecretStr("other")) == ["api-secret-differs"]
    assert looked(ctx, project, webhook_secret=SecretStr("")) == ["settings-missing", "api-secret-differs"]


def test_a_model_server_with_another_password_or_that_is_away_is_connected_again(ctx, project):
    """The password cannot be read: Label Studio's own trouble with it tells."""
    port = free_port()
    first, second = (elsewhere(ctx, port, token) for token in ("old", "new"))
    with served(first, port):
        (server,) = ctx.label_studio.ml_backends(project)
        url = first.settings.public_url
        ctx.label_studio.update_ml_backend(server["id"], project, url, "Wardround", "wardround", "old")
    with served(second, port):
        refused, elsewhere_now = of_project.findings(second, project)
        assert (refused.code, elsewhere_now.code) == ("backend-down", "webhook-elsewhere")
        assert refused.fix is not None
        refused.fix()
        assert codes(second, project) == ["webhook-elsewhere"]
    assert codes(second, project) == ["backend-down", "webhook-elsewhere"]
    assert looked(second, project) == ["api-unreachable"]
    assert cure(ctx, project) == []


def elsewhere(ctx: Context, port: int, token: str) -> Context:
    changed = {"api_token": SecretStr(token), "public_url": f"http://127.0.0.1:{port}"}
    return replace(ctx, settings=ctx.settings.model_copy(update=changed))


@pytest.mark.parametrize(
    ("token", "code"), [("f" * 40, "token-refused"), ("access", "token-is-access-token"), ("bad", "token-refused")]
)
def test_a_token_that_opens_nothing_is_said(ctx, label_studio, project, token, code):
    if token == "access":
        answer = httpx.post(f"{label_studio.url}/api/token/refresh/", json={"refresh": label_studio.pat()})
        token = answer.json()["access"]
    if token == "bad":
        token = label_studio.pat()[:-4] + "AAAA"
    assert with_token(ctx, label_studio, token, project) == [code]


def test_legacy_tokens_that_the_organisation_forbids_are_said(ctx, label_studio, person, project):
    with LabelStudioClient(label_studio.url, label_studio.pat()) as personal:
        personal.require_access()
        person.post("/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": False})
        try:
            assert with_token(ctx, label_studio, label_studio.token, project) == ["legacy-token-off"]
        finally:
            personal._call(
                "POST", "/api/jwt/settings", body={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
            )
    assert with_token(ctx, label_studio, label_studio.token, project) == []


def with_token(ctx: Context, label_studio: Any, token: str, project_id: int) -> list[str]:
    with LabelStudioClient(label_studio.url, token) as client:
        settings = ctx.settings.model_copy(update={"label_studio_token": SecretStr(token)})
        found = doctor.examine(replace(ctx, settings=settings, label_studio=client), project_id)
    return [finding.code for finding in found.findings]


def test_a_label_studio_that_is_away_is_said(ctx, label_studio, project):
    with LabelStudioClient("http://127.0.0.1:9", label_studio.token) as client:
        found = doctor.examine(replace(ctx, label_studio=client), project)
    assert [finding.code for finding in found.findings] == ["label-studio-unreachable"]


def test_the_locks_life_is_read_where_the_token_allows_it(ctx, label_studio, project, monkeypatch):
    with LabelStudioClient(label_studio.url, label_studio.pat()) as client:
        personal = replace(ctx, label_studio=client)
        found = access.look(personal, [project])
        assert client.lock_seconds() == 3600
        assert found.findings == []
        assert not [what for what in found.unchecked if LEGACY_ONLY in what]
        monkeypatch.setattr(access, "_LONGEST_LOCK_SECONDS", 60.0)
        monkeypatch.setattr(access, "TESTED", "1.22.")
        assert looked(personal, project) == ["label-studio-version", "lock-ttl"]


# --------------------------------------------------------------------------------------------------- disconnecting


def test_disconnecting_leaves_the_project_as_it_was_before(ctx, person):
    project_id = person.post("/api/projects/", json={"title": "passing", "label_config": CONFIG_XML}).json()["id"]
    tasks = [{"image": f"/data/upload/{project_id}/{number}.png"} for number in range(3)]
    person.post(f"/api/projects/{project_id}/import", json=tasks).raise_for_status()
    before = everything(person, project_id)
    tab = ctx.label_studio.create_tab(project_id, {"title": "Mine"})
    connecting.connect(ctx, project_id, {})
    assert disconnect(ctx, project_id) is not None, "a round that waits is called off"
    after = everything(person, project_id)
    assert after[:2] == before[:2] == [[], []]
    assert [one["id"] for one in after[2]] == [tab["id"]]
    assert after[3] == before[3]
    assert codes(ctx, project_id) == ["not-connected"]


def test_a_project_that_is_connected_again_goes_on_where_it_was(ctx, person, project):
    order = ctx.label_studio.served_order(project)
    assert disconnect(ctx, project) is None
    assert ctx.label_studio.project(project)["model_version"] == ""
    assert connecting.connect(ctx, project, {}).round_id is None
    assert codes(ctx, project) == []
    assert ctx.label_studio.served_order(project) == order
    assert serve_next(person, project)["id"] == order[0]
