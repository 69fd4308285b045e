"""A fault on each stack, so that none of them stops working unseen; `benchmarks/faults.py` does them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import LabelStudioUnreachable
from backend.label_studio.payloads import prediction
from backend.tables import ModelVersion, Round
from tests.backend import rows
from tests.faults import verdict
from tests.faults.campaign import FAULTS, once
from tests.faults.cluster import Cluster
from tests.faults.label_studio_server import TOKEN, Server
from tests.faults.stacks import NotHereError, stack

# A kill on each, where the most can be lost.
CORE = {
    "sqlite": ["worker killed: training"],
    "postgres-redis": ["worker killed: after the predictions are stored"],
    "postgres-rabbitmq": ["worker killed: training"],
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CORE)
def test_rounds_end_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    """Real processes, disturbed from their first round on."""
    rng = np.random.default_rng(0)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with ExitStack() as leaving:
        try:
            services = leaving.enter_context(stack(name, data_dir))
        except NotHereError as error:
            _missing(str(error))
        cluster = leaving.enter_context(Cluster(tmp_path, data_dir, services))
        for fault in CORE[name]:
            tally = once(cluster, fault, rng)
            assert tally.verdict == "holds", f"{fault}: {tally.verdict}\n{cluster.state()}"


def test_every_core_fault_is_one_of_the_campaign() -> None:
    assert {fault for faults in CORE.values() for fault in faults} <= set(FAULTS)


# ------------------------------------------------------------------------------------------- a verdict that can fail


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without a process, for a verdict on what the test writes itself."""
    with stack("sqlite", tmp_path) as services:
        cluster = Cluster(tmp_path, tmp_path, services)
        cluster.store.migrate()
        cluster.connect()
        yield cluster
        cluster.store.close()


def test_the_verdict_names_a_lost_annotation(still: Cluster) -> None:
    still.server.annotate(1, np.random.default_rng(0))
    assert verdict.lost_annotations(still) == ["annotation 1 of Label Studio is not in the database"]


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ([rows.a_round(number=1)], "the rounds' numbers are [1]"),
        ([rows.a_round(status="failed", error="why")], "round 0 failed: why"),
        ([rows.version()], "belong to no round"),
        ([rows.a_round(verdict="promoted")], "none serves"),
        ([rows.a_round()], "we published None, Label Studio has wardround-r7"),
    ],
    ids=["a gap", "a failure", "an orphan", "nobody serves", "another queue"],
)
def test_the_verdict_names_what_is_broken(still: Cluster, planted: list[Round | ModelVersion], words: str) -> None:
    still.server.state.settings["model_version"] = "wardround-r7"
    with still.store.begin() as s:
        s.add_all(planted)
    assert any(words in one for one in verdict.violations(still))


def test_the_verdict_names_doubled_predictions(still: Cluster) -> None:
    still.server.state.settings["model_version"] = "v1"
    still.server.state.import_predictions(1, [prediction(1, "v1", [], 0.5)] * 2)
    with still.store.begin() as s:
        s.add(rows.a_round())
    assert any("two predictions" in one for one in verdict.violations(still))


# ------------------------------------------------------------------------------------- the Label Studio of the faults


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(n_tasks=7) as server:
        yield server


def test_it_answers_what_the_client_asks(server: Server) -> None:
    server.annotate(2, np.random.default_rng(0), left_unlabelled=0)
    with LabelStudioClient(server.url, TOKEN) as client:
        found = list(client.tasks(1))
        assert [len(one.annotations) for one in found] == [1, 1, 0, 0, 0, 0, 0]
        assert list(client.tasks(1, updated_after=found[0].updated_at)) == found[1:2]
        assert client.task_ids(1) == set(range(1, 8))
        assert client.fetch_image(found[0].task.image_url, 10**6).startswith(b"\x89PNG")
        assert client.import_predictions(1, [prediction(task, "v1", [], 1 / task) for task in range(1, 8)]) == 7
        assert client.served_order(1) == []
        client.update_project(1, model_version="v1")
        assert client.served_order(1) == [7, 6, 5, 4, 3] == server.served_order()
        assert client.model_versions(1) == {"v1": 7}
        client.delete_model_version(1, "v1")
        assert client.model_versions(1) == {}


def test_it_can_be_down_and_it_can_act_without_an_answer(server: Server) -> None:
    with LabelStudioClient(server.url, TOKEN) as client:
        server.down = True
        with pytest.raises(LabelStudioUnreachable):
            client.project(1)
        server.down, server.mute = False, True
        with pytest.raises(LabelStudioUnreachable):
            client.import_predictions(1, [prediction(1, "v1", [], 0.5)])
        server.mute = False
        assert client.model_versions(1) == {"v1": 1}


def _missing(why: str) -> None:
    """A service that is required must not be missing; the names are those of the other tests."""
    required = os.environ.get("WARDROUND_REQUIRE_SERVICES", "")
    if required == "1" or why.partition(":")[0] in required.split(","):
        pytest.fail(f"{why} (required by WARDROUND_REQUIRE_SERVICES={required})", pytrace=False)
    pytest.skip(why.splitlines()[0])
