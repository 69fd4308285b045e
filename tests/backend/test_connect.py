"""Connecting a project: everything a lead would have to click, once, whatever was there before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr

from backend import connect as connecting
from backend import rounds
from backend.context import Context
from backend.errors import BadSettings
from backend.label_studio.errors import LabelStudioUnreachable, UnsupportedLabelConfig
from backend.store import Store, predictions, projects
from backend.store import rounds as rows
from backend.tables import Annotation, Project, Role, Round, RoundItem, RoundStatus
from backend.wiring import SECRET_HEADER
from tests.backend.conftest import World
from tests.backend.connectable import Connectable, titles
from tests.backend.fakes import LABEL_CONFIG
from tests.backend.web import add_version, store_predictions

PROJECT = 1
# Laws of what Label Studio holds: one database is as good as the other.
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
API = "http://127.0.0.1:9090"


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
    assert (backend["url"], backend["basic_auth_user"], backend["basic_auth_pass"]) == (
        API,
        "wardround",
        "the-api-token",
    )
    assert backend["is_interactive"] is True
    assert titles(label_studio.views) == ["Uncertainty queue", "Review"]
    project = known(ctx.store)
    assert project is not None
    assert (project.label_config, project.group_field, project.prompt_field) == (LABEL_CONFIG, "group", "prompt")
    assert label_studio.settings == {
        "sampling": "Uncertainty sampling",
        "show_collab_predictions": True,
        "evaluate_predictions_automatically": False,
        "min_annotations_to_start_training": 0,
        "maximum_annotations": 1,
        "model_version": "",
    }, "a model version that nothing was published under would leave the queue to chance"


def test_there_is_one_webhook_and_it_shows_our_secret(ctx: Context, label_studio: Connectable) -> None:
    connect(ctx)
    (hook,) = label_studio.hooks
    assert hook["url"] == f"{API}/webhook"
    assert hook["headers"] == {SECRET_HEADER: "the-webhook-secret"}
    assert set(hook["actions"]) >= {
        "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED",
        "TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED",
    }  # fmt: skip


def test_connecting_twice_is_connecting_once(ctx: Context, label_studio: Connectable) -> None:
    first = connect(ctx, Lesion="a dark lesion")
    before, changes = known(ctx.store), label_studio.changes
    assert changes and first.changes
    assert connecting.would_change(ctx, PROJECT, {}) == []
    second = connecting.connect(ctx, PROJECT, {})
    after = known(ctx.store)
    assert second.changes == []
    assert label_studio.changes == changes, "what is right already is not made anew"
    assert (len(label_studio.backends), len(label_studio.hooks), len(label_studio.views)) == (1, 1, 2)
    assert round_ids(ctx.store) == [first.round_id]
    assert second.round_id is None
    assert second.prompts == first.prompts, "a prompt that was given stays until another one is"
    assert before is not None and after is not None
    told = [column.name for column in Project.__table__.columns if column.name != "reconciled_at"]
    assert {name: getattr(after, name) for name in told} == {name: getattr(before, name) for name in told}


@on_sqlite
def test_a_dry_run_says_what_connecting_does_and_changes_nothing(ctx: Context, label_studio: Connectable) -> None:
    label_studio.settings |= {"show_collab_predictions": False, "min_annotations_to_start_training": 5}
    settings = dict(label_studio.settings)
    said = connecting.would_change(ctx, PROJECT, {"Lesion": "a dark lesion"})
    assert (label_studio.changes, label_studio.settings, known(ctx.store)) == (0, settings, None)
    assert round_ids(ctx.store) == []
    done = connect(ctx, Lesion="a dark lesion").changes
    # A new model server brings a webhook and a model version of its own, which are put right on the way.
    assert set(said) - set(done) == {"create the webhook"}
    assert set(done) - set(said) == {"set the webhook right", "set its model version to ''"}


@on_sqlite
def test_fields_and_prompts_stay_as_they_were_unless_others_are_named(ctx: Context) -> None:
    connecting.connect(ctx, PROJECT, {}, "patient", "hint")
    done = connecting.connect(ctx, PROJECT, {})
    assert (done.group_field, done.changes) == ("patient", [])
    assert connecting.would_change(ctx, PROJECT, {}, "video") == ["remember another group field"]


@on_sqlite
def test_what_somebody_changed_is_put_right_in_its_place(ctx: Context, label_studio: Connectable) -> None:
    connect(ctx)
    ids = [one["id"] for one in (*label_studio.backends, *label_studio.hooks, *label_studio.views)]
    label_studio.hooks[0] |= {"actions": [], "headers": {}, "is_active": False}
    label_studio.backends[0]["is_interactive"] = False
    label_studio.views[0]["data"]["ordering"] = ["tasks:id"]
    label_studio.views[1]["data"]["ordering"] = ["tasks:id"]
    done = connect(ctx)
    assert done.changes == [
        "set the model server right", "set the webhook right",
        "set order and filter of the tab 'Uncertainty queue' right",
    ]  # fmt: skip
    assert [one["id"] for one in (*label_studio.backends, *label_studio.hooks, *label_studio.views)] == ids
    assert label_studio.hooks[0]["headers"] == {SECRET_HEADER: "the-webhook-secret"}
    assert label_studio.views[0]["data"]["ordering"] == ["tasks:predictions_score"]
    assert label_studio.views[1]["data"]["ordering"] == ["tasks:id"], "how people review is their own"


@on_sqlite
def test_predictions_that_somebody_deleted_are_served_again(ctx: Context, label_studio: Connectable) -> None:
    round_id = connect(ctx).round_id
    assert round_id is not None and rounds.run(ctx, round_id)
    queue, sent = label_studio.served_order(PROJECT), label_studio.predictions[:]
    label_studio.predictions, label_studio.settings["model_version"] = [], ""
    connect(ctx)
    assert label_studio.served_order(PROJECT) == queue
    assert sorted(label_studio.predictions, key=lambda one: one["task"]) == sorted(sent, key=lambda one: one["task"])


@on_sqlite
def test_a_round_that_publishes_is_left_to_choose_the_model_version(ctx: Context, label_studio: Connectable) -> None:
    round_id = connect(ctx).round_id
    assert round_id is not None
    with ctx.store.begin() as s:
        for status in (RoundStatus.selected, RoundStatus.trained, RoundStatus.evaluated, RoundStatus.decided):
            s.get_one(Round, round_id).status = status
            s.flush()
        s.get_one(Round, round_id).status = RoundStatus.rescored
    label_studio.settings["model_version"] = "wardround-r0-v0"
    assert connect(ctx).changes == []
    assert label_studio.settings["model_version"] == "wardround-r0-v0"


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
    assert label_studio.hooks[: len(theirs)] == theirs, "one to another address is not ours"
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


@on_sqlite
def test_connecting_forgets_the_predictions_that_would_turn_out_otherwise_and_no_others(
    ctx: Context, label_studio: Connectable, world: World
) -> None:
    def kept(overlapping: bool | None = None, **prompts: str) -> set[int]:
        store_predictions(world, version, [1, 2])
        connecting.connect(ctx, PROJECT, prompts, overlapping=overlapping)
        with ctx.store.read() as s:
            return set(predictions.of_tasks(s, version.id, [1, 2]))

    connect(ctx, Lesion="a dark lesion")
    version = add_version(world)
    assert kept() == kept(Lesion="a dark lesion") == {1, 2}
    assert kept(overlapping=False) == {1, 2}, "one label shares its pixels with nobody"
    assert kept(Lesion="a bright lesion") == set()
    label_studio.label_config = LABEL_CONFIG.replace("<Label ", '<Label value="Cyst"/><Label ', 1)
    assert kept() == set()
    assert kept() == {1, 2}, "exclusive it was and stays"
    assert kept(overlapping=True) == set()
    project = known(ctx.store)
    assert project is not None and project.overlapping
