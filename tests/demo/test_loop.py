"""What counts as a closed loop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.__main__ import parse
from demo.annotator import Answer
from demo.errors import LoopNotClosed
from demo.loop import require_parents, require_served, require_trained
from demo.product import Queued, Round

ROUND = Round(
    id=2,
    number=1,
    status="done",
    verdict="promoted",
    n_labels=19,
    n_held_out=5,
    dice=0.6,
    incumbent_dice=0.1,
    progress=None,
    error=None,
)
ANSWER = Answer(task_id=7, annotation_id=1, parent_prediction=3, agreement=0.5, lead_time_seconds=24.0)


def test_a_trained_round_passes():
    require_trained(ROUND, submitted=24)
    require_trained(replace(ROUND, verdict="kept"), submitted=24)


@pytest.mark.parametrize(
    ("changed", "submitted"),
    [({"verdict": "initial"}, 24), ({"verdict": None}, 24), ({"dice": None}, 24), ({}, 25)],
    ids=["nothing trained", "no verdict", "nothing measured", "a label lost"],
)
def test_a_round_that_did_not_learn_from_every_label_fails(changed, submitted):
    with pytest.raises(LoopNotClosed, match="round 1"):
        require_trained(replace(ROUND, **changed), submitted)


def test_every_annotation_needs_the_pre_annotation_it_came_from():
    require_parents([ANSWER])
    with pytest.raises(LoopNotClosed, match="8"):
        require_parents([ANSWER, replace(ANSWER, task_id=8, parent_prediction=None)])
    with pytest.raises(LoopNotClosed, match="none was served"):
        require_parents([])


def test_the_served_task_must_be_the_head_of_the_queue():
    queue = [Queued(task_id=4, rank=0, score=0.9, arm="strategy"), Queued(task_id=2, rank=1, score=0.8, arm="strategy")]
    require_served(4, queue)
    require_served(None, [])
    for served in (2, None):
        with pytest.raises(LoopNotClosed, match="begins with 4"):
            require_served(served, queue)


def test_too_few_images_for_the_rounds_are_refused_before_anything_starts(capsys):
    with pytest.raises(SystemExit):
        parse(["--images", "48", "--rounds", "2", "--annotations-per-round", "24"])
    assert "--images" in capsys.readouterr().err
    assert parse(["--once", "--images", "49"]).once
