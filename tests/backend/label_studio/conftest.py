"""A client, a person and a project of six images on a real Label Studio."""

import httpx
import pytest

from backend.label_studio.client import LabelStudioClient
from tests.backend.label_studio.live import RANKING, new_project, sign_up


@pytest.fixture(scope="module")
def person(label_studio):
    """An annotator at the API, as the editor would be."""
    headers = {"Authorization": f"Token {label_studio.token}"}
    with httpx.Client(base_url=label_studio.url, headers=headers, timeout=60) as browser:
        yield browser


@pytest.fixture(scope="module")
def client(label_studio):
    with LabelStudioClient(label_studio.url, label_studio.token) as client:
        yield client


@pytest.fixture
def project_id(person):
    """A project of six uploaded images."""
    return new_project(person)


@pytest.fixture
def ranking(client, project_id):
    task_ids = sorted(client.task_ids(project_id))
    return [task_ids[position] for position in RANKING]


@pytest.fixture
def colleague(label_studio, person):
    """A second annotator, signed up by invitation."""
    with sign_up(label_studio.url, person) as browser:
        yield browser
