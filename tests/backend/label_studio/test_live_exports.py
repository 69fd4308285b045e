"""What a real Label Studio exports makes the same labelled folder as the project it came from."""

import pytest
from pydantic import SecretStr

from backend import labelled_folder
from backend.errors import NotAnExport
from backend.label_studio import payloads
from backend.labelled_folder import Source
from model import read_image, read_mask
from simulation.dataset import read_folder
from tests.backend.label_studio.live import CONFIG, blob, png, submit
from tests.backend.label_studio.product import context_of, pull


def silent(*_):
    pass


@pytest.fixture
def ctx(client, project_id, tmp_path):
    ctx = context_of(client, tmp_path / "product", project_id)
    yield ctx
    ctx.store.close()


def exported(person, project_id, path, form="JSON"):
    query = {"exportType": form, "download_all_tasks": "true"}
    path.write_bytes(person.get(f"/api/projects/{project_id}/export", params=query).raise_for_status().content)
    return path


def seen_in(labelled):
    return {
        pair.id: (read_image(pair.image).tobytes(), read_mask(pair.mask).tobytes(), pair.prompt, pair.group)
        for pair in read_folder(labelled.folder)
    }


def test_an_export_is_what_its_project_is(ctx, label_studio, person, project_id, ranking, tmp_path):
    lesion = payloads.regions(CONFIG, {"Lesion": blob(3)}, {})
    both = payloads.regions(CONFIG, {"Lesion": blob(1), "Organ": blob(9)}, {})
    for task_id, regions in zip(ranking, (lesion, both, []), strict=False):
        submit(person, task_id, regions)
    submit(person, ranking[3], was_cancelled=True)
    pull(ctx, project_id)
    ours = labelled_folder.of_project(ctx, project_id, tmp_path / "ours", silent)
    assert (ours.images, ours.rows, ours.left_out) == (3, 6, {})

    path = exported(person, project_id, tmp_path / "export.json")
    images = tmp_path / "images"
    images.mkdir()
    for n in range(len(ranking)):
        (images / f"image{n}.png").write_bytes(png(n))  # as they were before they were uploaded
    settings = ctx.settings.model_copy(update={"label_studio_token": SecretStr("")})
    kept = labelled_folder.of_export(settings, path, tmp_path / "kept", Source(images=images), silent)
    real = {"label_studio_url": label_studio.url, "label_studio_token": SecretStr(label_studio.token)}
    settings = ctx.settings.model_copy(update=real)
    fetched = labelled_folder.of_export(settings, path, tmp_path / "fetched", Source(), silent)
    pixels = {name: one[:2] for name, one in seen_in(ours).items()}
    for other in (kept, fetched):
        assert {name: one[:2] for name, one in seen_in(other).items()} == pixels
        assert other.groups == ours.groups
    path = exported(person, project_id, tmp_path / "min.json", "JSON_MIN")
    with pytest.raises(NotAnExport, match="JSON_MIN"):
        labelled_folder.of_export(settings, path, tmp_path / "none", Source(), silent)
