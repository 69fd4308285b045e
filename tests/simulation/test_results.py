"""results.csv, the report and the figure."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from simulation import report, results
from simulation.errors import BadResults
from simulation.figure import learning_curve, penalty_matrix
from simulation.loop import ALL, Asked, Judged, Outcome, Record
from simulation.statistics import curves

FIRST = Outcome("entropy", 0, 0, 10, 0.1 + 0.2, 0.5, 0.05, 0.2, 1.25, 100)


def arm(strategy: str, seed: int, dice: list[float], steps: int = 100) -> list[Outcome]:
    return [
        Outcome(strategy, seed, i, 10 + 5 * i, value, value / 2, 0.1, 0.3, 1.0, steps) for i, value in enumerate(dice)
    ]


def record(outcome: Outcome) -> Record:
    return Record(outcome, (Judged("a", 1 / 3, 0.5),), (Asked("b", True), Asked("c", False)))


def test_an_arm_survives_to_the_last_digit(tmp_path: Path) -> None:
    records = [record(outcome) for outcome in arm("a name, with a comma", 1, [1 / 3, 0.1 + 0.2])]
    results.save_arm(tmp_path, records)
    assert results.load_arm(tmp_path, "a name, with a comma", 1) == records
    assert results.load_arm(tmp_path, "another", 1) == results.load_arm(tmp_path, "a name, with a comma", 2) == []


def test_the_table_survives_and_is_sorted(tmp_path: Path) -> None:
    rows = [*arm("random", 1, [0.1]), FIRST, *arm("random", 0, [1 / 3, 0.7])]
    results.write_table(tmp_path, [record(outcome) for outcome in rows])
    found = results.read_table(tmp_path / "results.csv")
    assert found == [FIRST, *arm("random", 0, [1 / 3, 0.7]), *arm("random", 1, [0.1])]
    header = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "strategy,seed,round,n_labels,dice,nsd,ece,aurc,seconds,steps"


def test_what_is_not_ours_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(BadResults, match="not a table"):
        results.read_table(tmp_path / "results.csv")
    (tmp_path / "arms").mkdir()
    (tmp_path / "arms" / "random-0.json").write_text("[{]", encoding="utf-8")
    with pytest.raises(BadResults, match="remove it"):
        results.load_arm(tmp_path, "random", 0)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    results.keep_settings(tmp_path, {"max_steps": 10, "backbone": "tiny", "limit": None})
    results.keep_settings(tmp_path, {"max_steps": 10, "backbone": "tiny", "limit": None})
    with pytest.raises(BadResults, match=r"\(max_steps was 10, is 20\)"):
        results.keep_settings(tmp_path, {"max_steps": 20, "backbone": "tiny", "limit": None})


def written(tmp_path: Path, outcomes: list[Outcome]) -> str:
    records = [Record(outcome, (), ()) for outcome in outcomes]
    return report.write(tmp_path, records, {}, {"max_steps": 100}).read_text(encoding="utf-8")


def test_the_report_holds_every_mean_and_says_what_it_cannot_show(tmp_path: Path) -> None:
    outcomes = [*arm("random", 0, [0.2, 0.4]), *arm("random", 1, [0.4, 0.4]), *arm("entropy", 0, [0.3, 0.9])]
    text = written(tmp_path, outcomes)
    assert "| strategy | 10 labels | 15 labels |" in text
    assert "| random | 0.300 ± 0.141 | 0.400 ± 0.000 |" in text
    assert "| entropy | 0.300 | 0.900 |" in text
    assert "| entropy | 0.600 | +0.300 | – | 0.300 | 0.900 | – | 0.100 | 0.300 |" in text
    assert "1 seed(s)" in text
    assert "not equal" not in text


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ([0.50, 0.51, 0.52, 0.53, 0.54], "better than `random`: hybrid."),
        ([0.30, 0.31, 0.32, 0.33, 0.34], "nothing is shown to beat `random`; worse: hybrid."),
        ([0.30, 0.52, 0.41, 0.44, 0.38], "nothing is shown to beat `random`."),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path: Path, ours: list[float], said: str) -> None:
    outcomes = [o for seed in range(5) for o in arm("random", seed, [0.40 + seed / 100] * 2)]
    outcomes += [o for seed, dice in enumerate(ours) for o in arm("hybrid", seed, [dice] * 2)]
    assert f"By the area under the Dice curve, {said}" in written(tmp_path, outcomes)


def test_all_labels_are_a_level_and_not_a_strategy(tmp_path: Path) -> None:
    outcomes = [*arm("random", 0, [0.2, 0.4, 0.8]), replace(FIRST, strategy=ALL, n_labels=300, dice=0.8)]
    text = written(tmp_path, outcomes)
    assert "0.800 with 300 labels" in text
    assert "| random | 0.450 | – | – | 0.225 | 0.800 | 20 |" in text, "0.95 x 0.8 = 0.76 lies 9/10 between 15 and 20"
    assert f"| {ALL} |" not in text


def test_unequal_training_is_called_out() -> None:
    outcomes = [*arm("random", 0, [0.2]), replace(FIRST, steps=60)]
    assert any("60 to 100" in caution for caution in report.cautions(outcomes))


def test_enough_seeds_are_not_complained_about() -> None:
    outcomes = [outcome for seed in range(5) for outcome in arm("random", seed, [0.2, 0.3])]
    assert not any("not evidence" in caution for caution in report.cautions(outcomes))


def test_the_figure_is_xml_with_a_line_per_strategy_that_rises_with_dice() -> None:
    curve = curves([*arm("a < b", 0, [0.0, 1.0]), *arm("flat", 0, [0.5, 0.5])], "dice")
    root = ET.fromstring(learning_curve(curve, "Dice"))  # noqa: S314  our own text
    lines = [node.attrib["points"].split() for node in root.iter() if node.tag.endswith("polyline")]
    rising, flat = ([float(point.split(",")[1]) for point in line] for line in lines)
    assert rising[1] < flat[0] == flat[1] < rising[0], "y points down in SVG"
    assert "a < b" in [node.text for node in root.iter()]


def test_the_axis_spans_what_there_is_to_see() -> None:
    curve = curves(arm("close", 0, [0.861, 0.872]), "dice")
    root = ET.fromstring(learning_curve(curve, "Dice", reference=0.89))  # noqa: S314  our own text
    [line] = [node for node in root.iter() if node.tag.endswith("polyline")]
    low, high = (float(point.split(",")[1]) for point in line.attrib["points"].split())
    assert low - high > 50, "a hundredth of Dice is to be seen"
    assert "all labels" in [node.text for node in root.iter()]


def test_the_matrix_has_a_number_for_each_pair() -> None:
    root = ET.fromstring(penalty_matrix(["a", "b"], np.array([[0, 3], [1, 0]]), 4))  # noqa: S314  our own text
    assert [node.text for node in root.iter() if node.attrib.get("text-anchor") == "middle"] == ["0", "3", "1", "0"]
