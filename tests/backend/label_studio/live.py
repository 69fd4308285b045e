"""What a round and a person do with a real Label Studio."""

import io
import re
from contextlib import contextmanager
from uuid import uuid4

import httpx
import numpy as np
from PIL import Image

from backend.label_studio import payloads

CONFIG_XML = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/><Label value="Organ"/></BrushLabels></View>'
)
CONFIG = payloads.parse_label_config(CONFIG_XML)
HEIGHT, WIDTH = 48, 64
SAMPLING = "Uncertainty sampling"
PASSWORD = "correct horse battery"
RANKING = (3, 0, 5, 1, 4, 2)  # positions among the tasks: an order that neither ids nor time give


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def new_project(person, title="room"):
    """A project of six uploaded images."""
    answer = person.post("/api/projects/", json={"title": title, "label_config": CONFIG_XML})
    project_id = answer.raise_for_status().json()["id"]
    files = [(f"file{n}", (f"image{n}.png", png(n), "image/png")) for n in range(len(RANKING))]
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
    return project_id


def blob(top=5):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + 20, 10:40] = True
    mask[top + 5 : top + 9, 20:22] = False
    return mask


def publish(client, project_id, ranking, version="wardround-r1-v1", **fields):
    """What a round does: push every prediction, then make their version the project's."""
    items = [
        payloads.prediction(
            task_id,
            version,
            payloads.regions(CONFIG, {"Lesion": blob(rank)}, {"Lesion": 0.8}),
            payloads.ls_score(rank, len(ranking)),
        )
        for rank, task_id in enumerate(ranking)
    ]
    assert client.import_predictions(project_id, items) == len(ranking)
    client.update_project(project_id, model_version=version, sampling=SAMPLING, **fields)


def serve_next(person, project_id):
    return person.get(f"/api/projects/{project_id}/next").raise_for_status().json()


def submit(person, task_id, regions=(), **fields):
    body = {"result": list(regions), "lead_time": 2.5} | fields
    return person.post(f"/api/tasks/{task_id}/annotations/", json=body).raise_for_status().json()["id"]


@contextmanager
def sign_up(url, person):
    """Another annotator, invited by `person`: a client with a session of its own."""
    invitation = person.get("/api/invite").raise_for_status().json()["invite_url"]
    with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as browser:
        page = browser.get(invitation).text
        form = {
            "csrfmiddlewaretoken": re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0],
            "email": f"colleague-{uuid4().hex}@wardround.local",
            "password": PASSWORD,
        }
        browser.post(invitation, data=form, headers={"Referer": url}).raise_for_status()
        browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
        yield browser
