"""Which text asks for a label, and that no stored prediction outlives what it was asked with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend import annotations, predictions, prompts, rounds
from backend.label_studio.payloads import Event
from backend.serving import Served
from backend.store import predictions as rows
from backend.store import projects
from backend.tables import ModelVersion, Project, Task
from model import ModelConfig, Segmenter
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, png
from tests.backend.test_predictions import PROJECT, ask
from tests.backend.test_rounds import populate, run_first_round
from tests.backend.web import add_version

WITH_PROMPT = LABEL_CONFIG.replace('value="Lesion"', 'value="Lesion" prompt="a dark {label}"')
TWO_LABELS = LABEL_CONFIG.replace("<Label ", '<Label value="Cyst"/><Label ', 1)
POLYGONS = LABEL_CONFIG.replace("BrushLabels", "PolygonLabels")


def test_the_tasks_own_prompt_counts_before_the_given_one_before_the_configs_before_the_label() -> None:
    project = Project(prompts={"Lesion": "a bright {label}"}, label_config=WITH_PROMPT)
    assert prompts.prompt_for(project, Task(prompt="two of {label}"), "Lesion") == "two of Lesion"
    assert prompts.prompt_for(project, Task(prompt=None), "Lesion") == "a bright Lesion"
    project.prompts = {}
    assert prompts.prompt_for(project, Task(prompt=None), "Lesion") == "a dark Lesion"
    project.label_config = LABEL_CONFIG
    assert prompts.prompts_for(project, Task(prompt=None)) == ["Lesion"]
    project.label_config, project.prompts = TWO_LABELS, {"Cyst": "a round {label}"}
    assert prompts.by_label(project) == {"Cyst": "a round Cyst", "Lesion": "Lesion"}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.create(ModelConfig(), seed=0)


def serve(world: World, segmenter: Segmenter) -> None:
    """Have a version serve whose weights are at hand."""
    served = Served(add_version(world), segmenter)

    def load(version: ModelVersion) -> Served:
        return served

    world.ctx.serving.load = load  # type: ignore[method-assign]


@pytest.fixture
def served(world: World, segmenter: Segmenter) -> World:
    """A serving version and two tasks it has predicted, of which the second has a prompt of its own."""
    for task_id in (1, 2):
        world.label_studio.add_task(task_id)
    edit(world, 2, prompt="a small disc")
    serve(world, segmenter)
    ask(world, 1, 2)
    assert stored(world) == {1, 2}
    return world


def edit(world: World, task_id: int, **data: Any) -> None:
    """What a lead does by the API of Label Studio: change a task's data, and we pull."""
    fake = world.label_studio
    task = fake.task_rows[task_id]
    changed = task.data | data
    fake.task_rows[task_id] = replace(task, data=changed, image_url=changed["image"])
    fake.touched[task_id] = fake.tick()
    world.pull()


def stored(world: World) -> set[int]:
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    with world.ctx.store.read() as s:
        return set(rows.of_tasks(s, version.id, [1, 2]))


def hears(label_config: str) -> Callable[[World], Any]:
    return lambda world: annotations.receive(world.ctx, Event("PROJECT_UPDATED", PROJECT, label_config=label_config))


def pulls(label_config: str) -> Callable[[World], Any]:
    def pull(world: World) -> None:
        world.label_studio.label_config = label_config
        world.pull()

    return pull


@pytest.mark.parametrize("arrives", [hears, pulls], ids=["by webhook", "by pull"])
@pytest.mark.parametrize(
    ("label_config", "kept"),
    [
        (LABEL_CONFIG.replace("<View>", '<View className="wide">'), {1, 2}),
        (WITH_PROMPT, {1, 2}),  # the project's own prompt wins, so nothing would turn out otherwise
        (TWO_LABELS, set()),
        (LABEL_CONFIG.replace('name="brush"', 'name="pencil"'), set()),
        (POLYGONS, set()),
    ],
    ids=["nothing that counts", "a prompt that does not win", "a label", "another name", "another kind"],
)
def test_a_label_config_forgets_exactly_what_would_turn_out_otherwise(
    served: World, arrives: Any, label_config: str, kept: set[int]
) -> None:
    arrives(label_config)(served)
    assert served.project.label_config == label_config
    assert stored(served) == kept


def test_a_prompt_in_the_label_config_forgets_the_tasks_that_have_none_of_their_own(served: World) -> None:
    with served.ctx.store.begin() as s:
        projects.change(s, PROJECT, prompts={})
    hears(WITH_PROMPT)(served)
    assert stored(served) == {2}
    ask(served, 1)
    assert stored(served) == {1, 2}, "no round is needed to answer anew"


def test_a_pull_takes_a_changed_prompt_and_forgets_that_task_alone(served: World) -> None:
    edit(served, 1, prompt="a bright spot")
    assert stored(served) == {2}
    edit(served, 2, prompt="")
    assert stored(served) == set()
    with served.ctx.store.read() as s:
        assert [projects.task(s, task_id).prompt for task_id in (1, 2)] == ["a bright spot", None]


def test_a_pull_takes_another_image_and_looks_at_it_anew_but_never_moves_a_task(served: World) -> None:
    with served.ctx.store.begin() as s:
        before = projects.task(s, 1)
        projects.change_task(s, 1, problem="a broken image")
    served.label_studio.images["/data/upload/1/new.png"] = png(77)
    edit(served, 1, image="/data/upload/1/new.png", group="another")
    with served.ctx.store.read() as s:
        after = projects.task(s, 1)
    assert (after.image_url, after.image_sha256, after.problem) == ("/data/upload/1/new.png", None, None)
    assert (after.group_key, after.held_out) == (before.group_key, before.held_out)
    assert stored(served) == {2}
    ask(served, 1)
    assert stored(served) == {1, 2}
    with served.ctx.store.read() as s:
        assert projects.task(s, 1).image_sha256 not in (None, before.image_sha256)


def test_a_pull_of_what_did_not_change_forgets_nothing(served: World) -> None:
    edit(served, 1, note="seen by the lead")
    edit(served, 2, group="another")
    assert stored(served) == {1, 2}


def test_an_old_webhook_does_not_bring_an_old_prompt_back(served: World) -> None:
    old = served.label_studio.task_rows[1]
    edit(served, 1, prompt="a bright spot")
    annotations.receive(served.ctx, Event("ANNOTATION_UPDATED", PROJECT, tasks=[old]))
    with served.ctx.store.read() as s:
        assert projects.task(s, 1).prompt == "a bright spot"


def test_another_key_of_the_image_reads_every_task_anew(served: World) -> None:
    served.pass_time(minutes=30)
    served.label_studio.add_task(3)
    served.pull()  # what it found is so new that the next pull would not look at the others
    for task_id in (1, 2):
        fake = served.label_studio
        task = fake.task_rows[task_id]
        fake.images[f"/data/{task_id}.png"] = png(task_id + 50)
        # Nobody touched the tasks: they had both images all along, as the pull reads them by the key of the config
        fake.task_rows[task_id] = replace(task, image_url=f"/data/{task_id}.png")
    pulls(LABEL_CONFIG.replace("$image", "$scan"))(served)
    with served.ctx.store.read() as s:
        assert [projects.task(s, task_id).image_url for task_id in (1, 2)] == ["/data/1.png", "/data/2.png"]
    assert stored(served) == set()


def test_a_prediction_is_not_kept_when_its_prompt_changed_while_it_was_made(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(served, 1, prompt="a bright spot")
    edit(served, 2, prompt="two bright spots")
    segmenter_seed = predictions.seed_of

    def meanwhile(version: Any) -> int:
        monkeypatch.setattr(predictions, "seed_of", segmenter_seed)
        edit(served, 1, prompt="a dark spot")
        return segmenter_seed(version)

    monkeypatch.setattr(predictions, "seed_of", meanwhile)
    assert len(ask(served, 1, 2)) == 2
    assert stored(served) == {2}


def test_a_round_that_began_before_a_label_was_added_still_scores_every_task(
    world: World, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for changes while it rescores: nothing outdated is kept, and it does not go on for ever."""
    populate(world, 4)
    run_first_round(world)
    serve(world, segmenter)
    compute, calls = predictions.compute, 0

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            found = compute(*arguments, **named)
            hears(TWO_LABELS)(world)
            return found
        return compute(*arguments, **named)

    monkeypatch.setattr(predictions, "compute", meanwhile)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    with world.ctx.store.read() as s:
        assert not rows.tasks_without(s, PROJECT, version.id)
    assert calls >= 2
