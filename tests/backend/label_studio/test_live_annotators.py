"""Several annotators at once in a real Label Studio: who gets which task, by which button."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock

import numpy as np
import pytest

from tests.backend.label_studio.live import png, publish, serve_next, sign_up, submit

N_TASKS = 24


@pytest.fixture
def annotators(label_studio, person):
    """Three of them, each with a session of their own."""
    with ExitStack() as sessions:
        yield [person, *(sessions.enter_context(sign_up(label_studio.url, person)) for _ in range(2))]


@pytest.fixture
def queue(client, person, project_id):
    """A published queue of many tasks in an order that ids do not give."""
    more = N_TASKS - len(client.task_ids(project_id))
    files = [(f"file{n}", (f"more{n}.png", png(100 + n), "image/png")) for n in range(more)]
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
    found = [int(one) for one in np.random.default_rng(0).permutation(sorted(client.task_ids(project_id)))]
    publish(client, project_id, found)
    return found


def test_three_who_work_at_once_get_each_task_once_and_in_order(annotators, project_id, queue):
    # Label Studio looks for a lock and then sets it: two who ask within the same instant may get the same task.
    asking = Lock()
    served = []

    def work(person):
        while True:
            with asking:
                answer = person.get(f"/api/projects/{project_id}/next")
                if answer.status_code == 404:  # no more tasks
                    return
                served.append(answer.raise_for_status().json()["id"])
                task_id = served[-1]
            submit(person, task_id)

    with ThreadPoolExecutor(len(annotators)) as threads:
        list(threads.map(work, annotators))
    assert served == queue


def test_with_overlap_a_task_comes_to_as_many_people_as_it_asks_for(annotators, client, project_id, queue):
    client.update_project(project_id, maximum_annotations=2)
    first, second, third = (serve_next(person, project_id)["id"] for person in annotators)
    assert (first, second) == (queue[0], queue[0])
    assert third == queue[1]


def test_label_tasks_as_displayed_follows_the_tab_and_locks_nothing(annotators, project_id, queue):
    """What the documentation warns of; where a later Label Studio locks here as well, it should say so."""
    body = {"project": str(project_id), "ordering": ["tasks:predictions_score"], "filters": None}
    answers = [
        person.post(f"/api/dm/actions?id=next_task&project={project_id}", json=body).raise_for_status().json()
        for person in annotators
    ]
    assert [answer["id"] for answer in answers] == [queue[0]] * 3


def test_a_task_that_is_open_keeps_its_lock_when_the_queue_changes(annotators, client, project_id, queue):
    """A new publication takes effect from the following task on: nobody loses the image in front of them."""
    person, colleague, _ = annotators
    open_task = serve_next(person, project_id)["id"]
    publish(client, project_id, queue[::-1], "wardround-r2-v2")
    assert serve_next(person, project_id)["id"] == open_task
    assert serve_next(colleague, project_id)["id"] == queue[-1]
    submit(person, open_task)
    assert serve_next(person, project_id)["id"] == queue[-2]
