"""results.csv, the report and the figure."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from simulation import report, results
from simulation.errors import BadResults
from simulation.figure import learning_curve
from simulation.loop import Outcome

FIRST = Outcome("entropy", 0, 0, 10, 0.1 + 0.2, 0.5, 1.25, 100)


def arm(strategy: str, seed: int, dice: list[float], steps: int = 100) -> list[Outcome]:
    return [Outcome(strategy, seed, i, 10 + 5 * i, value, value / 2, 1.0, steps) for i, value in enumerate(dice)]


def test_rows_survive_to_the_last_digit(tmp_path: Path) -> None:
    rows = [FIRST, *arm("a name, with a comma", 1, [1 / 3])]
    results.save(tmp_path, rows)
    assert results.load(tmp_path) == rows
    header = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "strategy,seed,round,n_labels,dice,nsd,seconds,steps"


def test_nothing_there_is_no_rows_and_something_foreign_is_refused(tmp_path: Path) -> None:
    assert results.load(tmp_path) == []
    (tmp_path / "results.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(BadResults, match="another --out"):
        results.load(tmp_path)


def test_a_broken_off_arm_is_dropped_whole() -> None:
    whole, broken = arm("random", 0, [0.1, 0.2, 0.3]), arm("random", 1, [0.1, 0.2])
    assert results.complete([*broken, *whole], rounds=2) == whole


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    results.keep_settings(tmp_path, {"max_steps": 10, "backbone": "tiny", "limit": None})
    results.keep_settings(tmp_path, {"max_steps": 10, "backbone": "tiny", "limit": None})
    with pytest.raises(BadResults, match=r"\(max_steps was 10, is 20\)"):
        results.keep_settings(tmp_path, {"max_steps": 20, "backbone": "tiny", "limit": None})


def test_area_under_the_curve_by_hand() -> None:
    assert report.area_under([(10, [0.2, 0.4]), (20, [0.5]), (50, [0.9])]) == pytest.approx((10 * 0.4 + 30 * 0.7) / 40)
    assert report.area_under([(10, [0.7])]) == 0.7
    assert report.area_under([(0, [0.3]), (7, [0.3]), (9, [0.3])]) == pytest.approx(0.3)


def test_the_report_holds_every_mean_and_says_what_it_cannot_show(tmp_path: Path) -> None:
    outcomes = [*arm("random", 0, [0.2, 0.4]), *arm("random", 1, [0.4, 0.4]), *arm("entropy", 0, [0.3, 0.9])]
    text = report.write(tmp_path, outcomes, {"max_steps": 100}).read_text(encoding="utf-8")
    assert "| strategy | 10 labels | 15 labels |" in text
    assert "| random | 0.300 ± 0.141 | 0.400 ± 0.000 | 0.350 |" in text
    assert "| entropy | 0.300 | 0.900 | 0.600 |" in text
    assert "1 seed(s)" in text
    assert "not equal" not in text


def test_unequal_training_is_called_out() -> None:
    outcomes = [*arm("random", 0, [0.2]), replace(FIRST, steps=60)]
    assert any("60 to 100" in caution for caution in report.cautions(outcomes))


def test_enough_seeds_are_not_complained_about() -> None:
    outcomes = [outcome for seed in range(5) for outcome in arm("random", seed, [0.2, 0.3])]
    assert not any("not evidence" in caution for caution in report.cautions(outcomes))


def test_the_figure_is_xml_with_a_line_per_strategy_that_rises_with_dice() -> None:
    curve = report.curves([*arm("a < b", 0, [0.0, 1.0]), *arm("flat", 0, [0.5, 0.5])], "dice")
    root = ET.fromstring(learning_curve(curve, "Dice"))  # noqa: S314  our own text
    lines = [node.attrib["points"].split() for node in root.iter() if node.tag.endswith("polyline")]
    rising, flat = ([float(point.split(",")[1]) for point in line] for line in lines)
    assert rising[1] < flat[0] == flat[1] < rising[0], "y points down in SVG"
    assert "a < b" in [node.text for node in root.iter()]
