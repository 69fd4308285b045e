"""Bad input of every kind: a clear error or an ordinary answer, nothing lost, and rounds go on and say without what."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from backend import annotations, report, rounds
from backend.errors import BadImage
from backend.label_studio.errors import LabelStudioUnauthorised
from backend.label_studio.payloads import Event
from backend.store import annotations as annotation_rows
from backend.store import projects
from backend.store import rounds as round_rows
from backend.tables import MOVES, Annotation, RoundStatus, Task, Verdict
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, SIDE, png
from tests.backend.test_rounds import annotate_both_sides, end_lease, populate, run_first_round
from tests.backend.web import BEARER, HOOK, annotation_body, predict_body, serve

PROJECT = 1
WITHOUT_BRUSH = '<View><Text name="t" value="$t"/></View>'
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def huge_png(side: int = 30_000) -> bytes:
    """A PNG of a few hundred bytes whose header promises side × side pixels in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def jpeg(share: float) -> bytes:
    """The first part of a real JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()[: int(len(buffer.getvalue()) * share)]


def stored(world: World, annotation_id: int) -> Annotation:
    with world.ctx.store.read() as s:
        row = s.get(Annotation, annotation_id)
    assert row is not None
    return row


def task(world: World, task_id: int) -> Task:
    with world.ctx.store.read() as s:
        return projects.task(s, task_id)


def usable(world: World) -> set[int]:
    with world.ctx.store.read() as s:
        return {row.id for row, _, _ in annotation_rows.usable(s, PROJECT)}


def training_tasks(world: World, n: int, **content: bytes | None) -> list[int]:
    """Ids of `n` tasks that are not held out."""
    found: list[int] = []
    for task_id in range(1, 200):
        if len(found) < n and not annotations.is_held_out(f"patient {task_id}", world.ctx.settings.held_out_share):
            world.label_studio.add_task(task_id, group=f"patient {task_id}")
            found.append(task_id)
    return found


def run_a_round(world: World) -> dict[str, Any]:
    round_id = rounds.open_now(world.ctx, PROJECT)
    assert rounds.run(world.ctx, round_id)
    return report.round_in_full(world.ctx, round_id)


@on_sqlite
def test_a_prompt_that_is_too_long_leaves_its_task_out_on_either_side_of_the_line(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    with world.ctx.store.begin() as s:
        answered = [task for task, _ in annotation_rows.answers(s, PROJECT)]
        too_long = [next(task.id for task in answered if task.held_out == side) for side in (True, False)]
        for task_id in too_long:
            projects.change_task(s, task_id, prompt="left " * 300)
    summary = run_a_round(world)
    assert summary["status"] == "done" and summary["candidate"] is not None
    assert {task for task, reason in summary["left_out"].items() if "77" in reason} == {str(one) for one in too_long}
    with world.ctx.store.read() as s:
        evaluation = round_rows.get(s, summary["id"]).evaluation
    assert evaluation is not None
    evaluated = {task_id for task_id, _ in evaluation["items"]}
    assert evaluated and evaluated.isdisjoint(too_long)
    assert rounds.reproduce(world.ctx, summary["id"]).same_weights


# ------------------------------------------------------------------------------------------------------ images


def test_an_image_of_30000_px_squared_is_refused_without_decoding_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("pixels were decoded"))
    with pytest.raises(BadImage, match="900000000 pixels"):
        world.ctx.files.put_image(huge_png())
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert not list(world.ctx.files.folder.rglob("*.*")), "nothing of it stays on disk"


@pytest.mark.parametrize("side", [100_000, 2**31 - 1])
def test_larger_images_than_pillow_itself_allows_are_refused_as_clearly(world: World, side: int) -> None:
    with pytest.raises(BadImage, match="pixels"):
        world.ctx.files.put_image(huge_png(side))


def pictures(kind: str, n: int) -> bytes:
    """A file of `n` pages or frames that all differ."""
    first, *others = (Image.new("L", (SIDE, SIDE), 20 * number) for number in range(1, n + 1))
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


@on_sqlite
@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_a_file_of_several_pages_is_refused_and_one_of_a_single_page_taken(world: World, kind: str) -> None:
    """People would see one page, the model another, and a mask would be of a page that nobody named."""
    with pytest.raises(BadImage, match="one task per page"):
        world.ctx.files.put_image(pictures(kind, 2))
    assert not list(world.ctx.files.folder.rglob("*.*")), "nothing of it stays on disk"
    world.ctx.files.put_image(pictures(kind, 1))


@on_sqlite
def test_a_photograph_that_brings_a_preview_along_is_one_image(world: World) -> None:
    world.ctx.files.put_image(pictures("MPO", 2))


def test_a_round_goes_on_without_broken_tasks_and_says_which(world: World) -> None:
    fake = world.label_studio
    good, other, missing, truncated, half_jpeg, huge, no_image, small_mask = training_tasks(world, 8)
    content = {truncated: png(truncated)[:80], half_jpeg: jpeg(0.5), huge: huge_png(), no_image: b"<html>404</html>"}
    for task_id, broken in content.items():
        fake.images[fake.task_rows[task_id].image_url] = broken
    del fake.images[fake.task_rows[missing].image_url]
    tasks = [good, missing, truncated, half_jpeg, huge, no_image, small_mask]
    for task_id in tasks:
        mask = np.ones((SIDE // 2, SIDE), dtype=bool) if task_id == small_mask else None
        fake.annotate(task_id, task_id, mask=mask)
    world.pull()
    summary = run_a_round(world)
    # Nothing is held out here, so nothing is promoted; it was trained all the same.
    assert (summary["status"], summary["verdict"], summary["candidate"]["number"]) == ("done", "kept", 1)
    assert {item["task_id"] for item in summary["items"]} == {good}
    left_out = summary["left_out"]
    assert set(left_out) == {str(task_id) for task_id in tasks[1:]}
    assert "404" in left_out[str(missing)]
    assert "900000000 pixels" in left_out[str(huge)]
    assert f"{SIDE} x {SIDE}" in left_out[str(small_mask)]
    assert all(len(reason) > 10 for reason in left_out.values())
    assert {stored(world, task_id).deleted_at for task_id in tasks} == {None}, "no annotation is lost"
    assert fake.served_order(PROJECT) == [other]
    (published,) = rounds_list(world)
    assert published["left_out"] == left_out


def rounds_list(world: World) -> list[dict[str, Any]]:
    return report.rounds_of(world.ctx, PROJECT)


def test_broken_tasks_that_nobody_annotated_are_served_last_and_stop_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.rounds import promote

    monkeypatch.setattr(promote, "decide", lambda **_: promote.Decision(Verdict.promoted, "by the test"))
    fake = world.label_studio
    ids = training_tasks(world, 4)
    fake.images[fake.task_rows[ids[0]].image_url] = huge_png()
    fake.annotate(99, ids[1])
    world.pull()
    run_a_round(world)
    assert task(world, ids[0]).problem
    run_a_round(world)
    assert fake.served_order(PROJECT)[-1] == ids[0]
    assert set(fake.served_order(PROJECT)) == {ids[0], *ids[2:]}


@pytest.mark.parametrize("broken", [None, b"not yet", huge_png()], ids=["missing", "no image", "huge"])
def test_an_image_that_was_mended_is_used_from_the_next_round_on(world: World, broken: bytes | None) -> None:
    """Storage that was away for an hour must not cost the annotations of its images for ever."""
    fake = world.label_studio
    (task_id,) = training_tasks(world, 1)
    url = fake.task_rows[task_id].image_url
    whole = fake.images.pop(url)
    if broken is not None:
        fake.images[url] = broken
    fake.annotate(1, task_id)
    world.pull()
    assert set(run_a_round(world)["left_out"]) == {str(task_id)}
    fake.images[url] = whole
    summary = run_a_round(world)
    assert summary["left_out"] == {}
    assert [item["task_id"] for item in summary["items"]] == [task_id]
    assert task(world, task_id).problem is None


def test_a_task_without_an_image_stays_out_and_asks_nobody_for_it(world: World) -> None:
    fake = world.label_studio
    (task_id,) = training_tasks(world, 1)
    fake.task_rows[task_id] = replace(fake.task_rows[task_id], data={"group": "patient 1"}, image_url="")
    fake.annotate(1, task_id)
    world.pull()
    for _ in range(2):
        assert "no image" in run_a_round(world)["left_out"][str(task_id)]
    assert fake.fetched == []


# ------------------------------------------------------------------------------------------------------- masks


def _resized(region: dict[str, Any]) -> None:
    region["original_width"] = SIDE * 2


def _gigantic(region: dict[str, Any]) -> None:
    region["original_width"] = region["original_height"] = 30_000
    region["value"]["rle"][:4] = list(struct.pack(">I", 30_000 * 30_000 * 4 % 2**32))


def _cut(region: dict[str, Any]) -> None:
    region["value"]["rle"] = region["value"]["rle"][:-2]


def _unknown_label(region: dict[str, Any]) -> None:
    region["value"]["brushlabels"] = ["Something else"]


def _no_numbers(region: dict[str, Any]) -> None:
    region["value"]["rle"] = ["a", None, 999]


def _no_value(region: dict[str, Any]) -> None:
    region["value"] = None


@pytest.mark.parametrize("damage", [_resized, _gigantic, _cut, _unknown_label, _no_numbers, _no_value])
@on_sqlite
def test_a_mask_that_cannot_be_used_is_kept_with_its_problem_until_it_is_painted_again(
    world: World, damage: Callable[[dict[str, Any]], None]
) -> None:
    world.label_studio.add_task(1)
    body = annotation_body(world, 1, 1)
    damage(body["annotation"]["result"][0])
    client = serve(world)
    assert client.post("/webhook", json=body, headers=HOOK).status_code == 201
    row = stored(world, 1)
    assert row.problem
    assert row.lead_time_seconds == 12.5
    assert usable(world) == set()
    assert client.post("/webhook", json=annotation_body(world, 1, 1), headers=HOOK).status_code == 201
    assert stored(world, 1).problem is None
    assert usable(world) == {1}


# ---------------------------------------------------------------------------------- label configs and actions


def test_a_prediction_for_a_label_config_without_a_brush_is_refused_in_words(world: World) -> None:
    world.label_studio.add_task(1)
    body = predict_body(world, 1) | {"label_config": WITHOUT_BRUSH}
    answer = serve(world).post("/predict", json=body, headers=BEARER)
    assert answer.status_code == 422
    assert answer.json()["error"] == "UnsupportedLabelConfig"
    assert "BrushLabels" in answer.json()["detail"]


def test_a_project_that_lost_its_brush_keeps_what_it_had_and_what_is_painted_meanwhile(world: World) -> None:
    world.label_studio.add_task(1)
    body = annotation_body(world, 1, 1)
    body["project"]["label_config"] = WITHOUT_BRUSH
    assert serve(world).post("/webhook", json=body, headers=HOOK).status_code == 201
    assert world.project.label_config == LABEL_CONFIG
    assert usable(world) == {1}


def test_a_label_that_was_added_while_the_webhooks_were_away_is_known_after_a_pull(world: World) -> None:
    fake = world.label_studio
    fake.add_task(1)
    world.pull()
    fake.label_config = LABEL_CONFIG.replace("<Label ", '<Label value="Cyst"/><Label ', 1)
    fake.annotate(1, 1)
    world.pull()
    assert stored(world, 1).problem is None
    with world.ctx.store.read() as s:
        ((_, _, masks),) = annotation_rows.usable(s, PROJECT)
    assert set(masks) == {"Lesion", "Cyst"}


def test_a_pull_of_a_project_that_lost_its_brush_is_said_and_loses_nothing(world: World) -> None:
    fake = world.label_studio
    fake.add_task(1)
    fake.annotate(1, 1)
    world.pull()
    fake.label_config = WITHOUT_BRUSH
    world.pull()
    assert world.project.label_config == LABEL_CONFIG
    assert usable(world) == {1}


@pytest.mark.parametrize("action", ["REVIEW_CREATED", "", "annotation_created", "DROP TABLE", "ü" * 1000])
@pytest.mark.parametrize("project", [{"id": 1}, {"id": 77}, {}, None, "text"])
@on_sqlite
def test_an_unknown_action_is_an_ordinary_event_that_changes_nothing(world: World, action: str, project: Any) -> None:
    body = {"action": action, "project": project, "annotation": "what ever", "tasks": 5}
    answer = serve(world).post("/webhook", json=body, headers=HOOK)
    assert answer.status_code == 201
    with world.ctx.store.read() as s:
        assert not s.query(Task).count()
        assert not s.query(Annotation).count()
    assert world.sent == []


@pytest.mark.parametrize("text", ["a\0b", "𝔘" * 3000, "'; DROP TABLE tasks; --"])
def test_any_text_in_the_data_of_a_task_can_be_stored(world: World, text: str) -> None:
    found = world.label_studio.add_task(1)
    odd = replace(found, data=found.data | {"group": text, "prompt": text})
    world.label_studio.task_rows[1] = odd
    world.label_studio.annotate(1, 1)
    annotations.receive(world.ctx, Event("TASKS_CREATED", PROJECT, tasks=[odd]))
    world.pull()
    assert usable(world) == {1}
    assert annotations.task_row(world.project, odd, 0.2, world.ctx.now())["group_key"] == task(world, 1).group_key


# ----------------------------------------------------------------------------------------------- expired token


def expire(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise LabelStudioUnauthorised("Label Studio does not accept the configured token")

    monkeypatch.setattr(world.label_studio, "_answer", refuse)


@pytest.mark.parametrize("status", [RoundStatus.opened, RoundStatus.rescored])
def test_an_expired_token_hands_the_round_back_with_a_clear_error_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, status: RoundStatus
) -> None:
    (task_id,) = training_tasks(world, 1)
    world.label_studio.annotate(1, task_id)
    world.pull()
    round_id = rounds.open_now(world.ctx, PROJECT)
    if status is RoundStatus.rescored:
        with world.ctx.store.begin() as s:
            for step in list(MOVES.values())[:-1]:
                round_rows.get(s, round_id).status = step
                s.flush()
    with monkeypatch.context() as patched:
        expire(world, patched)
        for _ in range(world.ctx.settings.max_attempts + 2):
            with pytest.raises(LabelStudioUnauthorised):
                rounds.run(world.ctx, round_id)
            end_lease(world, round_id)
        (row,) = rounds_list(world)
        assert (row["status"], row["finished_at"]) == (status.value, None)
        assert "token" in row["error"]
        assert rounds.resume_unclaimed(world.ctx) == [round_id]
        assert task(world, task_id).problem is None
    # The lead renews the token and starts the service again.
    assert rounds.run(world.ctx, round_id)
    (row,) = rounds_list(world)
    assert (row["status"], row["error"]) == ("done", None), "an error that is over is shown no more"
    assert row["left_out"] in ({}, None)


@on_sqlite
def test_an_expired_token_is_an_error_of_ours_to_label_studio(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.backend.web import add_version

    world.label_studio.add_task(1)
    world.pull()
    add_version(world)
    monkeypatch.setattr(world.ctx.serving, "load", lambda version: version)
    expire(world, monkeypatch)
    answer = serve(world).post("/predict", json=predict_body(world, 1), headers=BEARER)
    assert answer.status_code == 502
    assert answer.json()["error"] == "LabelStudioUnauthorised"
    assert task(world, 1).problem is None
