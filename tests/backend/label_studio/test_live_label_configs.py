"""Label configs, polygons with holes, prompts and storages: what a real Label Studio takes and gives back."""

import httpx
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from backend.label_studio import masks, payloads, polygons
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import ForbiddenImageUrl, LabelStudioError
from backend.label_studio.image_hosts import Outside, parse
from tests.backend.label_studio.live import HEIGHT, SAMPLING, WIDTH, blob, png, serve_next, submit

MIXED_XML = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion" prompt="a dark {label}"/></BrushLabels>'
    '<PolygonLabels name="outline" toName="image" smart="true"><Label value="Organ" prompt="the liver"/>'
    '<Label value="Lesion"/></PolygonLabels>'
    '<RectangleLabels name="box" toName="image" smart="true"><Label value="Lesion"/></RectangleLabels></View>'
)
MIXED = payloads.parse_label_config(MIXED_XML)


@pytest.fixture
def mixed_id(person):
    """A project with brushes, polygons and prompts, and one uploaded image."""
    answer = person.post("/api/projects/", json={"title": "mixed", "label_config": MIXED_XML})
    project_id = answer.raise_for_status().json()["id"]
    files = {"file": ("image.png", png(0), "image/png")}
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
    return project_id


def test_a_label_may_carry_a_prompt_and_label_studio_keeps_it(client, mixed_id):
    config = payloads.parse_label_config(client.project(mixed_id)["label_config"])
    assert config.prompts == {"Lesion": "a dark {label}", "Organ": "the liver"}
    assert config == MIXED


def test_brushes_and_polygons_with_holes_are_taken_shown_and_pulled_back(client, person, mixed_id):
    [task_id] = client.task_ids(mixed_id)
    sent = {"Lesion": blob(2), "Organ": blob(20)}
    assert not sent["Organ"].all() and not sent["Organ"][26, 21], "a mask with a hole"
    regions = payloads.regions(MIXED, sent, {"Lesion": 0.8, "Organ": 0.6})
    assert {region["type"] for region in regions} == {"brushlabels", "polygonlabels"}
    assert client.import_predictions(mixed_id, [payloads.prediction(task_id, "wardround-r1-v1", regions, 0.5)]) == 1
    client.update_project(mixed_id, model_version="wardround-r1-v1", sampling=SAMPLING, show_collab_predictions=True)
    [shown] = serve_next(person, mixed_id)["predictions"]
    submit(person, task_id, shown["result"], parent_prediction=shown["id"])
    [pulled] = client.tasks(mixed_id)
    for drawn in (shown["result"], pulled.annotations[0].regions):
        back = masks.masks_of(drawn, MIXED, expected_size=(HEIGHT, WIDTH))
        assert np.array_equal(back["Lesion"], sent["Lesion"])
        union = (back["Organ"] | sent["Organ"]).sum()
        assert (back["Organ"] & sent["Organ"]).sum() >= polygons.MIN_IOU * union
        assert not back["Organ"][26, 21]


def test_changed_task_data_are_pulled(client, person, mixed_id):
    [before] = client.tasks(mixed_id)
    data = before.task.data | {"prompt": "a liver in ultrasound"}
    person.patch(f"/api/tasks/{before.task.id}/", json={"data": data}).raise_for_status()
    [after] = client.tasks(mixed_id, before.updated_at)
    assert after.task.data == data
    assert after.task.image_url == before.task.image_url


@pytest.fixture(scope="module")
def bucket():
    """A bucket with one image, in an S3 of our own; gives the S3's address."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    httpx.put(f"{url}/scans").raise_for_status()
    httpx.put(f"{url}/scans/deep/image%201.png", content=png(7)).raise_for_status()
    yield url
    server.stop()


@pytest.mark.parametrize("presign", [False, True], ids=["through Label Studio", "redirected to the storage"])
def test_an_image_in_a_storage_is_fetched_with_label_studio_s_keys(label_studio, person, mixed_id, bucket, presign):
    storage = {
        "project": mixed_id, "bucket": "scans", "s3_endpoint": bucket, "region_name": "us-east-1",
        "aws_access_key_id": "k", "aws_secret_access_key": "s", "presign": presign, "use_blob_urls": True,
    }  # fmt: skip
    person.post("/api/storages/s3/", json=storage).raise_for_status()
    data = {"image": "s3://scans/deep/image 1.png"}
    task_id = person.post("/api/tasks/", json={"project": mixed_id, "data": data}).raise_for_status().json()["id"]
    outside = Outside(parse(bucket.removeprefix("http://"), ""))
    with LabelStudioClient(label_studio.url, label_studio.token, outside=outside) as client:
        [task] = [item.task for item in client.tasks(mixed_id) if item.task.id == task_id]
        assert task.image_url == data["image"]
        assert client.fetch_image(task.image_url, 10**6, task_id) == png(7)
    with LabelStudioClient(label_studio.url, label_studio.token) as client:
        if presign:
            with pytest.raises(ForbiddenImageUrl, match="WARDROUND_IMAGE_HOSTS"):
                client.fetch_image(task.image_url, 10**6, task_id)
        else:
            assert client.fetch_image(task.image_url, 10**6, task_id) == png(7)


def test_an_image_on_label_studio_s_own_disk_is_fetched_and_nothing_outside_its_folder(
    label_studio, client, person, mixed_id
):
    root = label_studio.state_dir / "local-files"
    (root / "scans").mkdir(parents=True)
    (root / "scans" / "image 1.png").write_bytes(png(8))
    outside = root.parent / "outside.png"
    outside.write_bytes(png(9))
    storage = {"project": mixed_id, "path": str(root / "scans"), "regex_filter": ".*png", "use_blob_urls": True}
    storage_id = person.post("/api/storages/localfiles/", json=storage).raise_for_status().json()["id"]
    person.post(f"/api/storages/localfiles/{storage_id}/sync").raise_for_status()
    [task] = [item.task for item in client.tasks(mixed_id) if "local-files" in item.task.image_url]
    assert client.fetch_image(task.image_url, 10**6, task.id) == png(8)
    door = task.image_url.partition("?d=")[0]
    for way_out in ("../outside.png", "scans/../../outside.png", "scans/%2e%2e/%2e%2e/outside.png", outside):
        with pytest.raises(LabelStudioError):
            client.fetch_image(f"{door}?d={way_out}", 10**6, task.id)
