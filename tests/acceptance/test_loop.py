"""Once round the loop with a scripted annotator: served in our order, stored, trained, promoted, served anew."""

import numpy as np
import pytest

from backend.tables import Effort
from demo.annotator import dice
from demo.data import true_mask
from demo.project import LABEL
from tests.acceptance.product import ANNOTATIONS_PER_ROUND, N_IMAGES, pre_annotation


def task_ids(queue):
    return [row["task_id"] for row in queue]


def test_label_studio_serves_exactly_the_queue(running, travelled):
    queue = task_ids(travelled.first_queue)
    assert sorted(queue) == sorted(running.project.pairs)
    assert travelled.served == queue[:ANNOTATIONS_PER_ROUND]


def test_every_annotation_is_stored_as_it_was_submitted(running, travelled):
    person = running.user_id()
    for answer in travelled.answers:
        row = running.annotation(answer.annotation_id)
        assert (row.task_id, row.project_id, row.completed_by) == (answer.task_id, running.project.id, person)
        assert row.lead_time_seconds == answer.lead_time_seconds
        assert answer.parent_prediction is not None
        assert row.parent_prediction == answer.parent_prediction
        assert (row.skipped, row.problem, row.deleted_at) == (False, None, None)
        assert np.array_equal(running.stored_mask(answer.task_id), true_mask(running.project.pairs[answer.task_id]))


def test_webhooks_alone_bring_annotations_and_open_the_round(travelled):
    """Until then nothing pulled: beat was not running. A webhook may be lost on a busy machine, few are."""
    assert len(travelled.unaided) >= ANNOTATIONS_PER_ROUND - 2
    assert travelled.opened_unaided or len(travelled.unaided) < ANNOTATIONS_PER_ROUND


def test_a_round_opened_by_itself_and_was_promoted(running, travelled):
    finished = travelled.finished
    assert running.trigger(finished.id) == "annotations"
    assert (finished.status, finished.verdict) == ("done", "promoted")
    assert finished.n_labels + finished.n_held_out == ANNOTATIONS_PER_ROUND
    assert finished.n_labels > 0 and finished.n_held_out > 0
    assert finished.dice is not None and 0 <= finished.dice <= 1


def test_a_round_says_which_masks_it_used_and_trains_on_no_held_out_one(running, travelled):
    items = running.api(f"/api/rounds/{travelled.finished.id}")["items"]
    assert {item["annotation_id"] for item in items} == {answer.annotation_id for answer in travelled.answers}
    assert {item["prompt"] for item in items} == {running.dataset.prompt}
    groups = {
        role: {group_of(running, item) for item in items if item["role"] == role} for role in ("train", "held_out")
    }
    assert not groups["train"] & groups["held_out"]


def group_of(running, item):
    return running.project.pairs[item["task_id"]].group


def test_the_pool_is_ranked_anew(travelled):
    """What is left over is asked for in another order; beyond the next query, most uncertain first."""
    before = task_ids(travelled.first_queue)[ANNOTATIONS_PER_ROUND:]
    after = task_ids(travelled.second_queue)
    assert sorted(after) == sorted(before) and len(after) == N_IMAGES - ANNOTATIONS_PER_ROUND
    assert after != before
    scores = [row["score"] for row in travelled.second_queue if row["arm"] == "strategy"]
    beyond = scores[ANNOTATIONS_PER_ROUND:]  # the query itself is the strategy's own choice
    assert beyond == sorted(beyond, reverse=True) and len(set(scores)) > 1


def test_the_next_task_is_the_head_of_the_new_queue_with_the_new_versions_mask(running, travelled):
    published = running.api(f"/api/projects/{running.project.id}/rounds")[1]["published_version"]
    task = travelled.next_task
    assert task["id"] == travelled.second_queue[0]["task_id"]
    assert [prediction["model_version"] for prediction in task["predictions"]] == [published]
    assert task["predictions"][0]["id"] == travelled.answer_to_next.parent_prediction
    assert running.label_studio(f"/api/projects/{running.project.id}")["model_version"] == published


def test_the_ledger_says_what_each_pre_annotation_was_worth(running, travelled):
    """As the scripted annotator saw it. Before the first model there was none."""

    def measured(answer):
        with running.store.read() as s:
            return s.get(Effort, answer.annotation_id)

    last = travelled.answer_to_next
    found = running.wait_for("the ledger", lambda: measured(last))
    assert found.round_id == travelled.finished.id
    assert found.dice[LABEL] == pytest.approx(last.agreement)
    assert found.accepted == (last.agreement == 1.0)
    assert [measured(answer).dice for answer in travelled.answers] == [None] * len(travelled.answers)


def test_the_pre_annotations_lie_where_the_lesions_are(running, travelled):
    """Roughly: the version was trained on a handful of masks. A mask that is turned or shifted has no such overlap."""
    published = travelled.next_task["predictions"][0]["model_version"]
    query = {"project": running.project.id, "page_size": N_IMAGES, "fields": "all"}
    agreement = []
    for task in running.label_studio("/api/tasks", **query)["tasks"]:
        truth = true_mask(running.project.pairs[task["id"]])
        ours = [each for each in task["predictions"] if each["model_version"] == published]
        agreement += [dice(pre_annotation({"predictions": [each]}, truth.shape), truth) for each in ours]
    assert len(agreement) == N_IMAGES - ANNOTATIONS_PER_ROUND
    assert np.median(agreement) > 0.5
