"""What the simulation sees is what a round trains on, whichever way it came; and nothing of the product changes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from backend import labelled_folder
from backend.errors import BadQuestion, BadSettings, FolderUnusable, ImageNotInFolder, NotConnected, NothingLabelled
from backend.label_studio.errors import LabelStudioUnreachable
from backend.labelled_folder import Labelled, Source
from backend.store import projects, rounds
from model import read_image, read_mask
from simulation.dataset import Pair, read_folder
from tests.backend.conftest import World
from tests.backend.exporting import write_export, write_images
from tests.backend.fakes import SIDE, png, true_mask
from tests.backend.test_consensus import select_a_round, thirds

PROJECT = 1
TWO_LABELS = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion" prompt="a bright {label}"/></BrushLabels>'
    '<PolygonLabels name="outline" toName="image"><Label value="Organ, large"/></PolygonLabels></View>'
)
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def silent(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture
def annotated(world: World) -> World:
    """Two labels, two annotators, and everything a round leaves out."""
    fake = world.label_studio
    fake.label_config = TWO_LABELS
    for task_id in range(1, 10):
        fake.add_task(task_id, group=None if task_id == 9 else f"patient {task_id // 2}")
    fake.task_rows[2].data["prompt"] = "a {label} of its own"
    for task_id in (1, 2, 3):
        fake.annotate(100 + task_id, task_id)
    fake.annotate(201, 1, mask=thirds(1), completed_by=8)
    fake.annotate(202, 1, mask=thirds(1, 2), completed_by=9)
    fake.annotate(104, 4, regions=[])  # submitted as empty
    fake.annotate(105, 5, skipped=True)
    fake.annotate(106, 6, mask=np.ones((SIDE, SIDE + 1), dtype=bool))  # not of its image's size
    fake.annotate(107, 7)
    fake.images[fake.task_rows[7].image_url] = b"no image"
    fake.annotate(109, 9)
    broken = fake.annotate(110, 8)
    fake.annotate(110, 8, regions=[broken.regions[0] | {"value": {"brushlabels": ["Lesion"], "rle": [1, 2]}}])
    world.pull()
    with world.ctx.store.begin() as s:
        projects.change(s, PROJECT, prompts={"Organ, large": "the {label}"})
    return world


@dataclass(frozen=True)
class Seen:
    """One image with one mask, as some model would learn from it."""

    image: bytes
    mask: bytes
    prompt: str
    group: str


def seen_by_a_round(world: World, **settings: Any) -> dict[str, Seen]:
    row = select_a_round(world, **settings)
    files = world.ctx.files
    with world.ctx.store.read() as s:
        items = rounds.items(s, row.id)
        groups = rounds.groups(s, items)
    return {
        f"{item.task_id} {item.label}": Seen(
            read_image(files.path("images", item.image_sha256)).tobytes(),
            read_mask(files.path("masks", item.mask_sha256)).tobytes(),
            item.prompt,
            groups[item.task_id],
        )
        for item in items
    }


def seen_in(pairs: list[Pair]) -> dict[str, Seen]:
    return {
        pair.id: Seen(read_image(pair.image).tobytes(), read_mask(pair.mask).tobytes(), pair.prompt, pair.group)
        for pair in pairs
    }


def write(world: World, folder: Path, **settings: Any) -> Labelled:
    ctx = replace(world.ctx, settings=world.ctx.settings.model_copy(update=settings))
    return labelled_folder.of_project(ctx, PROJECT, folder, silent)


@pytest.mark.parametrize("consensus", ["latest", "majority"])
def test_the_folder_of_a_project_is_what_a_round_freezes(annotated: World, tmp_path: Path, consensus: str) -> None:
    done = write(annotated, tmp_path / "labelled", consensus=consensus)
    found = seen_in(read_folder(done.folder))
    assert found == seen_by_a_round(annotated, consensus=consensus)
    assert sorted({int(name.split()[0]) for name in found}) == [1, 2, 3, 4, 9]
    assert (done.rows, done.images, done.groups) == (10, 5, 4)
    assert found["2 Lesion"].prompt == "a Lesion of its own"
    assert found["3 Lesion"].prompt == "a bright Lesion"
    assert found["3 Organ, large"].prompt == "the Organ, large"
    assert set(found["4 Lesion"].mask) == {0}, "an image answered as empty is an example"
    agreed = thirds(1) if consensus == "majority" else thirds(1, 2)
    if consensus == "latest":
        assert found["1 Lesion"].mask == agreed.tobytes()
    else:
        assert (np.frombuffer(found["1 Lesion"].mask, bool) & agreed.ravel()).sum() == agreed.sum()
    assert set(done.left_out) == {"6", "7"}


def test_rows_of_the_product_stay_as_they_were(annotated: World, tmp_path: Path) -> None:
    def stored() -> tuple[Any, ...]:
        with annotated.ctx.store.read() as s:
            tasks = projects.all_tasks(s, PROJECT)
            return [(task.id, task.image_sha256, task.problem) for task in tasks], len(rounds.of_project(s, PROJECT))

    before = stored()
    write(annotated, tmp_path / "labelled")
    assert stored() == before
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set(), "nothing is left behind"


@on_sqlite
def test_a_folder_written_once_is_gone_on_with(annotated: World, tmp_path: Path) -> None:
    first = write(annotated, tmp_path / "labelled")
    table = (first.folder / "pairs.csv").read_bytes()
    annotated.label_studio.annotate(108, 8)
    annotated.pull()
    assert write(annotated, tmp_path / "labelled") == first
    assert (first.folder / "pairs.csv").read_bytes() == table
    assert write(annotated, tmp_path / "another").images == first.images + 1
    with pytest.raises(FolderUnusable, match=r"consensus latest \(not staple\)"):
        write(annotated, tmp_path / "labelled", consensus="staple")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(FolderUnusable, match="not a labelled folder of ours"):
        write(annotated, tmp_path / "mine")
    with pytest.raises(FolderUnusable, match="cannot be written"):
        write(annotated, tmp_path / "mine" / "thesis.txt" / "below")


@on_sqlite
def test_a_label_studio_that_is_down_leaves_no_folder(annotated: World, tmp_path: Path) -> None:
    annotated.label_studio.down = True
    with pytest.raises(LabelStudioUnreachable):
        write(annotated, tmp_path / "out" / "labelled")
    assert list((tmp_path / "out").iterdir()) == []


@on_sqlite
def test_nothing_labelled_and_nobody_connected_are_said(world: World, tmp_path: Path) -> None:
    world.label_studio.add_task(1)
    world.pull()
    with pytest.raises(NothingLabelled, match="annotate some"):
        write(world, tmp_path / "labelled")
    world.label_studio.annotate(101, 1, mask=np.ones((5, 6), dtype=bool))
    world.pull()
    with pytest.raises(NothingLabelled, match=r"all 1 answers are left out: .*size"):
        write(world, tmp_path / "labelled")
    with pytest.raises(NotConnected, match="wardround connect 7"):
        labelled_folder.of_project(world.ctx, 7, tmp_path / "labelled", silent)
    assert not (tmp_path / "labelled").exists()


@on_sqlite
def test_one_label_needs_no_name_and_odd_groups_come_through(world: World, tmp_path: Path) -> None:
    groups = [" ", "a, “b”\nc", "  x  ", "x"]
    for task_id, group in enumerate(groups, start=1):
        world.label_studio.add_task(task_id, group=group)
        world.label_studio.annotate(100 + task_id, task_id)
    world.pull()
    pairs = read_folder(write(world, tmp_path / "labelled").folder)
    assert [pair.id for pair in pairs] == ["1", "2", "3", "4"]
    assert [pair.group for pair in pairs] == ["' '", "a, “b”\nc", "x", "x"]
    assert np.array_equal(read_mask(pairs[0].mask), true_mask(1))


@on_sqlite
def test_the_progress_ends_where_the_work_does(world: World, tmp_path: Path) -> None:
    for task_id in (1, 2):
        world.label_studio.add_task(task_id)
        world.label_studio.annotate(100 + task_id, task_id)
    world.pull()
    heard: list[tuple[str, int, int]] = []
    labelled_folder.of_project(world.ctx, PROJECT, tmp_path / "labelled", lambda *at: heard.append(at))
    assert heard == [(what, n, 2) for what in ("looking at answers", "copying images and masks") for n in range(2)]


# ---- an export -----------------------------------------------------------------------------------------------------

Export = Callable[..., Labelled]


@pytest.fixture
def export(annotated: World, tmp_path: Path) -> Export:
    """Convert the same project from its export; its images lie in a folder, and no Label Studio is known."""
    images = write_images(tmp_path / "images", annotated.label_studio.images)
    config = tmp_path / "config.xml"
    config.write_text(TWO_LABELS.replace('large"', 'large" prompt="the {label}"'), encoding="utf-8")
    alone = {"label_studio_url": "", "label_studio_token": SecretStr("")}

    def convert(folder: str = "exported", consensus: str = "latest", **changed: Any) -> Labelled:
        settings = annotated.ctx.settings.model_copy(update=alone | {"consensus": consensus})
        source = Source(**({"images": images, "label_config": config} | changed))
        path = write_export(tmp_path, annotated.label_studio)
        return labelled_folder.of_export(settings, path, tmp_path / folder, source, silent)

    return convert


@on_sqlite
@pytest.mark.parametrize("consensus", ["latest", "staple"])
def test_an_export_makes_the_same_folder_as_its_project(
    annotated: World, export: Export, tmp_path: Path, consensus: str
) -> None:
    ours, theirs = write(annotated, tmp_path / "ours", consensus=consensus), export(consensus=consensus)
    assert seen_in(read_folder(theirs.folder)) == seen_in(read_folder(ours.folder))
    assert (theirs.rows, theirs.images, theirs.groups) == (ours.rows, ours.images, ours.groups)
    assert set(theirs.left_out) == set(ours.left_out)
    assert annotated.label_studio.fetched.count(annotated.label_studio.task_rows[1].image_url) == 1, "ours alone"


@on_sqlite
def test_without_a_label_config_what_was_painted_tells(annotated: World, export: Export, tmp_path: Path) -> None:
    plain = seen_in(read_folder(export("plain", label_config=None).folder))
    told = seen_in(read_folder(export().folder))
    assert {name: one.mask for name, one in plain.items()} == {name: one.mask for name, one in told.items()}
    assert plain["3 Lesion"].prompt == "Lesion"


@on_sqlite
def test_groups_are_read_where_they_are_said_to_be(annotated: World, export: Export, tmp_path: Path) -> None:
    for task in annotated.label_studio.task_rows.values():
        task.data["visit"] = "the same"
    assert export("by visit", group_field="visit").groups == 1
    without = export("without", group_field="nobody has it")
    assert without.groups == without.images, "else each image is a group of its own"
    with pytest.raises(FolderUnusable, match=r"was made of group field visit \(not none\); name"):
        export("by visit")


@on_sqlite
def test_images_that_are_missing_are_all_named(annotated: World, export: Export, tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "8.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(ImageNotInFolder, match=r"holds no /data/upload/1/1\.png of task 1, .*2\.png of task 2; put"):
        export()
    assert not (tmp_path / "exported").exists()
    with pytest.raises(ImageNotInFolder, match="no folder"):
        export(images=tmp_path / "nowhere")
    with pytest.raises(BadQuestion, match="cannot be read"):
        export(label_config=tmp_path / "nowhere.xml")
    with pytest.raises(BadSettings, match=r"--images, or set WARDROUND_LABEL_STUDIO_URL"):
        export(images=None)


@on_sqlite
def test_an_image_under_a_way_out_of_the_folder_is_not_read(annotated: World, export: Export, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    for url in ("/data/upload/1/../../../secret.png", "/data/upload/1/link.png", str(tmp_path / "secret.png")):
        annotated.label_studio.task_rows[1].data["image"] = url
        with pytest.raises(ImageNotInFolder, match="of task 1"):
            export()


@on_sqlite
def test_the_table_says_where_it_came_from(annotated: World, export: Export, tmp_path: Path) -> None:
    done = export()
    with (done.folder / "pairs.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    expected = {"id": "1 Lesion", "image": "images/1.png", "mask": "masks/1-1.png", "group": "patient 0"}
    assert row == expected | {"prompt": "a bright Lesion"}
    said = json.loads((done.folder / "made_of.json").read_text(encoding="utf-8"))
    assert said["rows"] == 10 and set(said["left_out"]) == {"6", "7"}
