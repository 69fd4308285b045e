"""The tables: every mean by hand, the leak, and published figures only beside what they may be compared with."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from protocols import data_efficiency, evaluation, out_of_distribution, published, report
from protocols.results import Outcome


def outcome(data: str, dice: float, **changed: object) -> Outcome:
    values: dict[str, object] = {
        **{"model": "tiny", "source": data, "data": data, "split": "published", "prompts": "original", "percent": 100},
        **{"seed": 0, "n_train": 8, "n_test": 4, "n_test_groups": 2, "steps": 5, "seconds": 1.0, "dice": dice},
        **{"nsd_released": dice + 0.03, "nsd": dice / 2, "iou": 0.5, "hd95": 3.0, "brier": 0.1, "ece": 0.1},
        **{"aurc": 0.2, "notes": ()},
    }
    return Outcome(**{**values, **changed})  # type: ignore[arg-type]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, header first."""
    below = text.split(f"## {heading}", 1)[1]
    lines = [line for line in below.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]


def written(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# ---- data efficiency ----------------------------------------------------------------------------------------------


def test_a_cell_is_the_mean_over_seeds_and_a_row_is_one_way_of_training(tmp_path: Path):
    outcomes = [
        *(outcome("discs", dice, percent=10, seed=seed) for seed, dice in enumerate((0.2, 0.4))),
        outcome("discs", 0.9),
        outcome("discs", 0.5, prompts="“a | disc”"),
        outcome("elsewhere", 0.7, source="discs"),
    ]
    text = written(data_efficiency.write(tmp_path, outcomes))
    assert rows(text, "Dice (DSC), %") == [
        ["model", "data", "split", "prompts", "10 %", "100 %"],
        ["tiny", "discs", "published", "original", "30.00 ± 14.14", "90.00"],
        ["tiny", "discs", "published", "“a \\", "disc”", "–", "50.00"],
    ]
    assert rows(text, "NSD as published, %")[1][-2:] == ["33.00 ± 14.14", "93.00"]
    assert rows(text, "Boundary NSD (2 px), %")[1][-2:] == ["15.00 ± 7.07", "45.00"]
    assert rows(text, "Images")[1] == ["discs", "published", "8", "8", "4", "2"]
    assert "elsewhere" not in text
    assert "leak" not in text


def test_the_leak_is_the_difference_within_a_seed(tmp_path: Path):
    outcomes = [
        *(outcome("discs", dice, seed=seed) for seed, dice in enumerate((0.9, 0.8, 0.1))),
        *(outcome("discs", dice, seed=seed, split="grouped") for seed, dice in enumerate((0.5, 0.6))),
        outcome("discs", 0.4, percent=10, split="grouped"),
    ]
    table = rows(written(data_efficiency.write(tmp_path, outcomes)), "The leak")
    assert table[0][-3:] == ["published", "grouped", "leak"]
    assert table[1:] == [["tiny", "discs", "original", "100 %", "8", "85.00 ± 7.07", "55.00 ± 7.07", "30.00 ± 14.14"]]


def six(names: Sequence[str], **changed: object) -> list[Outcome]:
    return [outcome(name, 0.5 + number / 10, **changed) for number, name in enumerate(names)]


def test_the_published_average_stands_beside_an_average_of_all_six_and_of_nothing_less(tmp_path: Path):
    names = [name.lower() for name in published.AVERAGED]
    whole = written(data_efficiency.write(tmp_path, six(names)))
    mean = ["tiny", "mean of the six", "published", "original"]
    assert [*mean, "75.00"] in rows(whole, "Dice (DSC), %")
    assert [*mean, "78.00"] in rows(whole, "NSD as published, %")
    for lacking in (six(names[:5]), six(names, split="grouped"), [*six(names[:5]), outcome("eus", 1.0, seed=1)]):
        assert "mean of the six |" not in written(data_efficiency.write(tmp_path, lacking))


def test_the_published_table_is_complete_and_each_data_set_is_told_its_counterpart(tmp_path: Path):
    outcomes = [outcome("BUSI", 0.5), outcome("clinicdb", 0.5), outcome("nuclei", 0.5), outcome("Covid19", 0.5)]
    text = written(data_efficiency.write(tmp_path, outcomes))
    table = rows(text, "Published: DSC / NSD, mean of six data sets, %")
    assert len(table) == 1 + len(published.DATA_EFFICIENCY)
    assert table[-1] == ["MedCLIPSeg", "81.10 / 83.94", "85.08 / 87.85", "87.18 / 89.95", "88.66 / 91.35"]
    assert "BUSI: MedCLIPSeg at 100 % has DSC 85.72." in text
    assert "clinicdb: nothing is published for training on it. (DSC 80.80 is of a model trained on Kvasir" in text
    assert "nuclei: nothing is published for it alone." in text
    assert "Covid19: nothing is published for it alone." in text


# ---- out of distribution ------------------------------------------------------------------------------------------


def test_means_and_harmonic_mean_by_hand_with_the_published_beside(tmp_path: Path):
    outcomes = [
        outcome("Kvasir", 0.8),
        outcome("ClinicDB", 0.5, source="Kvasir"),
        outcome("BKAI", 0.3, source="Kvasir"),
        outcome("Kvasir", 0.1, percent=10),
        outcome("BUSI", 0.9),
    ]
    text = written(out_of_distribution.write(tmp_path, outcomes))
    table = [[row[3], row[4], row[6], row[9]] for row in rows(text, "Trained on Kvasir")[1:]]
    assert table == [
        ["Kvasir", "in distribution", "80.00", "90.15"],
        ["BKAI", "out of distribution", "30.00", "not published"],
        ["ClinicDB", "out of distribution", "50.00", "80.80"],
        ["ID mean", "", "80.00", ""],
        ["OOD mean", "", "40.00", ""],
        ["harmonic mean", "", "53.33", ""],
    ]
    assert "Trained on BUSI" not in text
    together = rows(text, "All sources together")[1]
    assert together[3:7] == ["80.00", "40.00", "53.33", "89.11 / 79.02 / 83.76"]
    assert together[7].startswith("BUSI, BUSBRA") and "ClinicDB" not in together[7]


def test_a_row_lacks_nothing_only_with_four_sources_and_ten_targets(tmp_path: Path):
    outcomes = [
        outcome(data, 0.6 if data == source else 0.3, source=source)
        for source, targets in published.TARGETS.items()
        for data in (source, *targets)
    ]
    table = rows(written(out_of_distribution.write(tmp_path, outcomes)), "All sources together")
    assert table[1][3:] == ["60.00", "30.00", "40.00", "89.11 / 79.02 / 83.76", "nothing"]
    del outcomes[6]
    table = rows(written(out_of_distribution.write(tmp_path, outcomes)), "All sources together")
    assert table[1][-1] == "ColonDB"


def test_other_prompts_stand_beside_their_own_published_means_and_no_published_data_set(tmp_path: Path):
    outcomes = [
        outcome("Kvasir", 0.8, prompts="missing_location"),
        outcome("ClinicDB", 0.5, source="Kvasir", prompts="missing_location"),
        outcome("Kvasir", 0.8, prompts="“a polyp”"),
        outcome("ClinicDB", 0.5, source="Kvasir", prompts="“a polyp”"),
    ]
    text = written(out_of_distribution.write(tmp_path, outcomes))
    assert [row[6] for row in rows(text, "All sources together")[1:]] == ["86.98 / 77.75 / 82.11", "–"]
    assert {row[9] for row in rows(text, "Trained on Kvasir")[1:]} == {"not published", ""}


# ---- checkpoints, and what all reports share ----------------------------------------------------------------------


def test_a_checkpoint_is_told_what_the_published_one_was_trained_on(tmp_path: Path):
    outcomes = [
        outcome("ClinicDB", 0.5, source="", model="a.pth"),
        outcome("ISIC", 0.5, source="", model="a.pth", prompts="contradictory"),
        outcome("BKAI", 0.5, source="", model="a.pth"),
        outcome("discs", 0.5),
    ]
    text = written(evaluation.write(tmp_path, outcomes))
    assert [row[-1] for row in rows(text, "Scores")[1:]] == [
        "80.80 (trained on Kvasir)",
        "not published",
        "not published",
    ]
    assert "discs" not in text
    assert ["contradictory", "yes", "68.60", "63.21", "65.79"] in rows(text, "Published by prompt design")


def test_every_outcome_is_in_the_csv_and_the_json_to_the_last_digit(tmp_path: Path):
    outcomes = [outcome("discs", 1 / 3, notes=("one, and", "another")), outcome("discs", 0.1 + 0.2, seed=1)]
    data_efficiency.write(tmp_path, outcomes)
    with (tmp_path / "data-efficiency.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in table] == [1 / 3, 0.1 + 0.2]
    assert table[0]["notes"] == "one, and another"
    assert [row["dice"] for row in json.loads(written(tmp_path / "data-efficiency.json"))] == [1 / 3, 0.1 + 0.2]


def test_notes_stand_in_the_report_once_and_few_seeds_are_said(tmp_path: Path):
    outcomes = [outcome("discs", 0.5, notes=("It leaks.",), percent=percent) for percent in (10, 100)]
    text = written(data_efficiency.write(tmp_path, outcomes))
    assert text.count("It leaks.") == 1
    assert "1 seed(s)" in text
    assert not [c for c in report.cautions([outcome("discs", 0.5, seed=seed) for seed in range(3)]) if "seed(s)" in c]
