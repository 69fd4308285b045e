"""The effort ledger against a real Label Studio: what it keeps of pre-annotations, and what it forgets."""

import pytest

from backend import effort
from backend.label_studio import payloads
from backend.tables import Effort
from tests.backend.label_studio.live import CONFIG, blob, publish, serve_next, submit
from tests.backend.label_studio.product import context_of, pull, remember_round

VERSION = "wardround-r1-v1"


@pytest.fixture
def ctx(client, project_id, tmp_path):
    ctx = context_of(client, tmp_path, project_id)
    yield ctx
    ctx.store.close()


def measured(ctx, project_id):
    pull(ctx, project_id)
    effort.measure(ctx, project_id)
    with ctx.store.read() as s:
        return {row.annotation_id: (row.accepted, row.dice, row.model_version_id) for row in s.query(Effort)}


def as_submitted(regions):
    """An unedited pre-annotation as the editor sends it."""
    return [region | {"origin": "prediction"} for region in regions]


def id_of(someone):
    return someone.get("/api/current-user/whoami").raise_for_status().json()["id"]


def test_the_ledger_knows_what_was_done_with_each_pre_annotation(ctx, client, person, colleague, project_id, ranking):
    remember_round(ctx, project_id, ranking, VERSION)
    publish(client, project_id, ranking, VERSION, show_collab_predictions=True)
    (first,) = serve_next(person, project_id)["predictions"]
    accepted = submit(person, ranking[0], as_submitted(first["result"]), parent_prediction=first["id"], lead_time=3.0)
    (second,) = serve_next(person, project_id)["predictions"]
    wider = payloads.regions(CONFIG, {"Lesion": blob(1) | blob(9)}, {})
    corrected = submit(person, ranking[1], wider, parent_prediction=second["id"], lead_time=12.0)
    by_hand = submit(person, ranking[2], payloads.regions(CONFIG, {"Organ": blob()}, {}), lead_time=60.0)
    drafted = submit(person, ranking[3], as_submitted(payloads.regions(CONFIG, {"Lesion": blob(3)}, {})))
    skipped = submit(person, ranking[4], was_cancelled=True)

    found = measured(ctx, project_id)
    assert found[accepted] == (True, {"Lesion": 1.0}, 1)
    assert found[corrected][0] is False and 0.5 < found[corrected][1]["Lesion"] < 1
    assert found[by_hand] == (None, None, None)
    assert found[drafted] == (True, {"Lesion": 1.0}, 1), "begun as a draft, it is submitted without its parent"
    assert skipped not in found
    total = effort.summary(ctx, project_id)["total"]
    assert (total["n"], total["n_with"], total["seconds_with"], total["seconds_without"]) == (4, 3, 3.0, 60.0)
    theirs = submit(colleague, ranking[5], payloads.regions(CONFIG, {"Organ": blob(2)}, {}), lead_time=40.0)
    found |= {theirs: measured(ctx, project_id)[theirs]}
    summary = effort.summary(ctx, project_id)
    counts = {by: {row[by]: (row["n"], row["n_with"]) for row in summary[f"by_{by}"]} for by in ("round", "label")}
    assert counts == {"round": {1: (5, 3)}, "label": {"Lesion": (3, 3), "Organ": (2, 0)}}
    by_person = {row["annotator"]: (row["n"], row["seconds_without"]) for row in summary["by_annotator"]}
    assert by_person == {id_of(person): (4, 60.0), id_of(colleague): (1, 40.0)}

    # Once a version is deleted, Label Studio knows neither its predictions nor who began from them.
    client.update_project(project_id, model_version="")
    client.delete_model_version(project_id, VERSION)
    person.patch(f"/api/annotations/{corrected}/", json={"result": as_submitted(second["result"])}).raise_for_status()
    after = measured(ctx, project_id)
    assert after.pop(corrected) == (True, {"Lesion": 1.0}, 1)
    assert after == {key: value for key, value in found.items() if key != corrected}, "compared once"
