"""Connecting a project: everything a lead would have to click, once, whatever was there before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import SecretStr

from backend import connect as connecting
from backend import rounds
from backend.context import Context
from backend.errors import BadSettings
from backend.label_studio.errors import LabelStudioUnreachable, UnsupportedLabelConfig
from backend.store import Store, projects
from backend.store import rounds as rows
from backend.tables import Annotation, Project, Role, RoundItem
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, FakeLabelStudio

PROJECT = 1
API = "http://127.0.0.1:9090"


@dataclass
class Connectable(FakeLabelStudio):
    """With model servers and webhooks, as Label Studio 1.23.2 keeps them."""

    backends: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    changes: int = 0

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        self._answer()
        return [dict(hook) for hook in self.hooks]

    def create_webhook(self, project_id: int, url: str, headers: dict[str, str], actions: Any) -> dict[str, Any]:
        self._change()
        self.hooks.append({"id": self.changes, "url": url, "headers": dict(headers), "actions": list(actions)})
        return self.hooks[-1]

    def delete_webhook(self, webhook_id: int) -> None:
        self._change()
        self.hooks = [hook for hook in self.hooks if hook["id"] != webhook_id]

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        self._answer()
        return [dict(backend) for backend in self.backends]

    def create_ml_backend(self, project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
        """Makes a webhook without any secret as well, and takes the title for the model version."""
        self._change()
        made = {"id": self.changes, "url": url, "title": title, "user": user, "password": password}
        self.backends.append(made)
        self.create_webhook(project_id, f"{url}/webhook", {}, ["everything"])
        self.settings["model_version"] = self.settings["model_version"] or title
        return made

    def delete_ml_backend(self, backend_id: int) -> None:
        self._change()
        self.backends = [backend for backend in self.backends if backend["id"] != backend_id]

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        self._change()
        return super().update_project(project_id, **fields)

    def _change(self) -> None:
        self._answer()
        self.changes += 1


@pytest.fixture
def label_studio() -> Connectable:
    fake = Connectable()
    for task_id in range(1, 7):
        fake.add_task(task_id)
    return fake


@pytest.fixture
def ctx(world: World, label_studio: Connectable) -> Context:
    """A context whose project is not connected yet."""
    with world.ctx.store.begin() as s:
        s.delete(s.get(Project, PROJECT))
    settings = world.ctx.settings.model_copy(update={"public_url": API})
    return replace(world.ctx, settings=settings, label_studio=label_studio)  # type: ignore[arg-type]


def connect(ctx: Context, **prompts: str) -> connecting.Connected:
    return connecting.connect(ctx, PROJECT, prompts, "group", "prompt")


def known(store: Store) -> Project | None:
    with store.read() as s:
        return projects.find(s, PROJECT)


def round_ids(store: Store) -> list[int]:
    with store.read() as s:
        return [row.id for row in rows.of_project(s, PROJECT)]


def test_connecting_sets_everything_up_and_opens_the_first_round(ctx: Context, label_studio: Connectable) -> None:
    done = connect(ctx, Lesion="a dark lesion")
    assert done.prompts == {"Lesion": "a dark lesion"}
    assert (done.tasks, [done.round_id]) == (6, round_ids(ctx.store))
    (backend,) = label_studio.backends
    assert (backend["url"], backend["user"], backend["password"]) == (API, "wardround", "the-api-token")
    project = known(ctx.store)
    assert project is not None
    assert (project.label_config, project.group_field, project.prompt_field) == (LABEL_CONFIG, "group", "prompt")
    assert label_studio.settings == {
        "sampling": "Uncertainty sampling",
        "show_collab_predictions": True,
        "evaluate_predictions_automatically": False,
        "model_version": "",
    }, "a model version that nothing was published under would leave the queue to chance"


def test_there_is_one_webhook_and_it_shows_our_secret(ctx: Context, label_studio: Connectable) -> None:
    connect(ctx)
    (hook,) = label_studio.hooks
    assert hook["url"] == f"{API}/webhook"
    assert hook["headers"] == {connecting.SECRET_HEADER: "the-webhook-secret"}
    assert set(hook["actions"]) >= {
        "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED",
        "TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED",
    }  # fmt: skip


def test_connecting_twice_is_connecting_once(ctx: Context, label_studio: Connectable) -> None:
    first = connect(ctx, Lesion="a dark lesion")
    before = known(ctx.store)
    second = connect(ctx)
    after = known(ctx.store)
    assert (len(label_studio.backends), len(label_studio.hooks)) == (1, 1)
    assert round_ids(ctx.store) == [first.round_id]
    assert second.round_id is None
    assert second.prompts == first.prompts, "a prompt that was given stays until another one is"
    assert before is not None and after is not None
    assert after.connected_at == before.connected_at


def test_connecting_again_keeps_the_published_queue(ctx: Context, label_studio: Connectable) -> None:
    round_id = connect(ctx).round_id
    assert round_id is not None
    assert rounds.run(ctx, round_id)
    queue = label_studio.served_order(PROJECT)
    assert sorted(queue) == list(range(1, 7))
    label_studio.settings |= {"model_version": "something else", "sampling": "Sequential sampling"}
    connect(ctx)
    assert label_studio.served_order(PROJECT) == queue
    assert label_studio.settings["sampling"] == "Uncertainty sampling"


def test_a_prompt_can_be_changed(ctx: Context) -> None:
    connect(ctx, Lesion="a dark lesion")
    assert connect(ctx, Lesion="a bright lesion").prompts == {"Lesion": "a bright lesion"}


def test_what_others_connected_stays(ctx: Context, label_studio: Connectable) -> None:
    label_studio.create_ml_backend(PROJECT, "http://other:9090", "Another model", "u", "p")
    theirs = label_studio.hooks[:]
    connect(ctx)
    connect(ctx)
    assert [backend["title"] for backend in label_studio.backends] == ["Another model", "Wardround"]
    assert label_studio.hooks[: len(theirs)] == theirs
    assert len(label_studio.hooks) == len(theirs) + 1


def test_a_prompt_for_a_label_that_is_not_there_is_refused_before_anything_changes(
    ctx: Context, label_studio: Connectable
) -> None:
    with pytest.raises(BadSettings, match=r"Leison.*Lesion"):
        connect(ctx, Leison="a dark lesion")
    assert label_studio.changes == 0
    assert known(ctx.store) is None


@pytest.mark.parametrize(
    "config",
    ["<View/>", "<View><Text name='t' value='$t'/></View>", "no XML", LABEL_CONFIG.replace("$image", "image"), ""],
)
def test_a_label_config_without_a_brush_is_refused_before_anything_changes(
    ctx: Context, label_studio: Connectable, config: str
) -> None:
    label_studio.label_config = config
    with pytest.raises(UnsupportedLabelConfig, match="A config that works"):
        connect(ctx)
    assert label_studio.changes == 0
    assert known(ctx.store) is None


@pytest.mark.parametrize("name", ["api_token", "webhook_secret"])
def test_without_secrets_nothing_is_connected(ctx: Context, label_studio: Connectable, name: str) -> None:
    bare = replace(ctx, settings=ctx.settings.model_copy(update={name: SecretStr("")}))
    with pytest.raises(BadSettings, match=f"WARDROUND_{name.upper()}"):
        connect(bare)
    assert label_studio.changes == 0


@pytest.mark.parametrize("after", range(4))
def test_connecting_that_was_cut_off_is_done_by_doing_it_again(
    ctx: Context, label_studio: Connectable, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    change = label_studio._change

    def give_up() -> None:
        if label_studio.changes >= after:
            raise LabelStudioUnreachable("nobody answers")
        change()

    with monkeypatch.context() as patched:
        patched.setattr(label_studio, "_change", give_up)
        with pytest.raises(LabelStudioUnreachable):
            connect(ctx)
    done = connect(ctx)
    assert (len(label_studio.backends), len(label_studio.hooks), done.tasks) == (1, 1, 6)
    assert len(round_ids(ctx.store)) == 1
    assert label_studio.settings["model_version"] == ""


def test_other_fields_are_read_anew_until_a_round_has_trained(ctx: Context, label_studio: Connectable) -> None:
    for task_id, task in label_studio.task_rows.items():
        data = task.data | {"patient": f"patient {task_id % 2}", "hint": "a bright disc"}
        label_studio.task_rows[task_id] = replace(task, data=data)
    assert connecting.connect(ctx, PROJECT, {}, "group", "prompt").groups == 6
    assert connecting.connect(ctx, PROJECT, {}, "patient", "hint").groups == 2
    with ctx.store.read() as s:
        tasks = projects.all_tasks(s, PROJECT)
    assert {task.prompt for task in tasks} == {"a bright disc"}
    sides = {task.group_key: {other.held_out for other in tasks if other.group_key == task.group_key} for task in tasks}
    assert all(len(side) == 1 for side in sides.values())
    with ctx.store.begin() as s:
        opened = rows.latest(s, PROJECT)
        assert opened is not None
        annotation = Annotation(id=1, project_id=PROJECT, task_id=1, skipped=False, received_at=ctx.now())
        s.add(annotation)
        s.flush()
        item = RoundItem(round_id=opened.id, annotation_id=1, label="Lesion", task_id=1, role=Role.train)
        item.image_sha256 = item.mask_sha256 = "0" * 64
        item.prompt = "a bright disc"
        rows.freeze_items(s, [item])
        opened.selected_at = ctx.now()
    with pytest.raises(BadSettings, match="leak"):
        connecting.connect(ctx, PROJECT, {}, "group", "hint")
    assert connecting.connect(ctx, PROJECT, {}, "patient", "hint").groups == 2
