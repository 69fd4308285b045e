"""Both layouts of a labelled folder, with the oddities the published tables have."""

from pathlib import Path

import pytest

from protocols import datasets
from protocols.datasets import Choice
from protocols.errors import BadLayout, BadPlan
from tests.protocols.folders import write_pair, write_pairs, write_published, write_table

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    return write_published(tmp_path / "Disc")


def prompts(disc: Path, name: str = "Test_text_original") -> Path:
    return disc / "Prompts_Folder" / f"{name}.xlsx"


# ---- the published layout -----------------------------------------------------------------------------------------


def test_every_row_becomes_an_example_sorted_by_name_with_its_own_mask(disc: Path):
    parts = datasets.read(disc, Choice())
    assert [len(parts.train), len(parts.val), len(parts.test)] == [4, 2, 3]
    assert [example.image.name for example in parts.test] == ["test (0).png", "test (1).png", "test (2).png"]
    for part, examples in (("Train", parts.train), ("Val", parts.val), ("Test", parts.test)):
        for example in examples:
            assert example.image.parent == disc / f"{part}_Folder" / "img"
            assert example.mask == disc / f"{part}_Folder" / "label" / f"mask {example.image.name}"
    assert parts.notes == ()


def test_prompts_lose_line_ends_and_double_blanks_and_one_text_replaces_all(disc: Path):
    test = datasets.read(disc, Choice()).test
    assert test[1].prompt == "one round bright disc, number test (1).png"
    missing = datasets.read_test(disc, Choice(design="missing_location")).test
    assert {example.prompt for example in missing} == {"one bright disc, located in of the image"}
    parts = datasets.read(disc, Choice(prompt="a disc"))
    assert {example.prompt for part in (parts.train, parts.val, parts.test) for example in part} == {"a disc"}


def test_a_percentage_reads_its_own_lists_but_the_whole_test_set(disc: Path):
    parts = datasets.read(disc, Choice(percent=50))
    assert [len(parts.train), len(parts.val), len(parts.test)] == [2, 1, 3]
    assert [example.image.name for example in parts.train] == ["train (1).png", "train (2).png"]


def test_what_is_not_published_is_refused_with_what_there_is(disc: Path):
    with pytest.raises(BadPlan, match=r"no such list; there are Train_text.xlsx, Train_text_50.xlsx"):
        datasets.read(disc, Choice(percent=10))
    with pytest.raises(BadPlan, match=r"there are Test_text_missing_location.xlsx, Test_text_original.xlsx"):
        datasets.read_test(disc, Choice(design="contradictory"))
    with pytest.raises(BadPlan, match="only --split published"):
        datasets.read(disc, Choice(split="grouped"))


def test_an_image_listed_twice_counts_once_with_its_first_row(disc: Path):
    name, mask = "test (1).png", "mask test (1).png"
    write_table(prompts(disc), [(name, "the first", mask), (name, "the second", mask)])
    parts = datasets.read_test(disc, Choice())
    assert [example.prompt for example in parts.test] == ["the first"]
    assert parts.notes == ("Disc: 1 repeated row(s) of test count once.",)


def test_a_name_on_both_sides_is_said_and_kept(disc: Path):
    write_pair(disc / "Train_Folder/img/test (0).png", disc / "Train_Folder/label/mask test (0).png", seed=0)
    write_table(prompts(disc, "Train_text"), [("test (0).png", "a disc", "mask test (0).png")])
    parts = datasets.read(disc, Choice())
    assert len(parts.train) == 1 and len(parts.test) == 3
    assert parts.notes == ("Disc: 1 file name(s) of test also stand in train; they are kept, as published.",)


def test_an_empty_validation_table_with_another_header_is_no_validation(disc: Path):
    write_table(prompts(disc, "Val_text"), [], ("Image", "Description", "Mask"))
    assert datasets.read(disc, Choice()).val == ()


def test_only_the_test_part_needs_to_be_there_for_a_target(disc: Path):
    prompts(disc, "Train_text").unlink()
    write_table(prompts(disc, "Val_text"), [("elsewhere.png", "a list of another data set", "elsewhere.png")])
    assert len(datasets.read_test(disc, Choice()).test) == 3
    with pytest.raises(BadLayout, match=r"Train_text\.xlsx does not exist"):
        datasets.read(disc, Choice())


def test_nothing_to_train_on_or_to_test_on_is_refused(disc: Path):
    write_table(prompts(disc, "Train_text"), [])
    with pytest.raises(BadLayout, match="no train images"):
        datasets.read(disc, Choice())
    write_table(prompts(disc), [])
    with pytest.raises(BadLayout, match="no test images"):
        datasets.read_test(disc, Choice())


@pytest.mark.parametrize("name", ["../img/test (0).png", "../../secret.png", "/etc/hostname", "a/../../../x.png"])
def test_no_name_leads_out_of_the_folder(disc: Path, name: str):
    (disc / "secret.png").write_bytes(b"")
    for row in [(name, "a disc", "mask test (0).png"), ("test (0).png", "a disc", name)]:
        write_table(prompts(disc), [row])
        with pytest.raises(BadLayout, match=r"Test_text_original.xlsx, row 2: .* points outside"):
            datasets.read_test(disc, Choice())


def test_an_image_that_is_not_there_is_named_with_its_row(disc: Path):
    (disc / "Test_Folder/img/test (2).png").unlink()
    with pytest.raises(BadLayout, match=r"row 3: .*test \(2\)\.png does not exist; fetch the images"):
        datasets.read_test(disc, Choice())


def test_a_folder_of_no_layout_is_refused(tmp_path: Path):
    with pytest.raises(BadLayout, match=r"neither pairs\.csv nor Prompts_Folder"):
        datasets.read(tmp_path, Choice())


# ---- pairs.csv ----------------------------------------------------------------------------------------------------

LEAKY = ("train", "train", "train", "train", "val", "train", "train", "test")


def test_both_splits_train_on_equally_many_images_and_only_one_keeps_groups_whole(tmp_path: Path):
    folder = write_pairs(tmp_path / "discs", [3] * 12, LEAKY)
    for percent in (10, 25, 50, 100):
        for seed in range(3):
            torn = datasets.read(folder, Choice(percent, "published", seed))
            whole = datasets.read(folder, Choice(percent, "grouped", seed))
            assert len(torn.train) == len(whole.train) == max(1, 28 * percent // 100)
            assert len(torn.test) == 4 and len(whole.test) == 3
            groups = [{example.group for example in part} for part in (whole.train, whole.val, whole.test)]
            assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
            assert whole.notes == ()
    assert datasets.read(folder, Choice()).notes == (
        "discs: 4 of 4 test groups also have training images, so scores are too high.",
    )


def test_the_published_split_is_taken_as_it_stands(tmp_path: Path):
    folder = write_pairs(tmp_path / "discs", [2] * 8, LEAKY)
    parts = datasets.read(folder, Choice())
    numbers = [[int(e.image.stem) for e in part] for part in (parts.train, parts.val, parts.test)]
    assert numbers == [[n for n in range(16) if LEAKY[n % 8] == part] for part in ("train", "val", "test")]
    assert parts.train[2].prompt == "one disc of image 2" and parts.train[2].group == "group 1"


def test_without_a_published_split_only_a_grouped_one_is_possible(tmp_path: Path):
    folder = write_pairs(tmp_path / "discs", [1] * 40)
    with pytest.raises(BadPlan, match="no published split of every image; use --split grouped"):
        datasets.read(folder, Choice())
    parts = datasets.read(folder, Choice(split="grouped"))
    assert [len(parts.train), len(parts.val), len(parts.test)] == [32, 4, 4]


def test_a_strange_part_a_repeated_id_and_another_design_are_refused(tmp_path: Path):
    folder = write_pairs(tmp_path / "discs", [2] * 4, ("train", "test", "holdout"))
    with pytest.raises(BadLayout, match="published_split holds holdout; it may hold train, val, test"):
        datasets.read(folder, Choice())
    with pytest.raises(BadPlan, match="no contradictory ones"):
        datasets.read(folder, Choice(design="contradictory"))
    table = folder / "pairs.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(BadLayout, match="id 000 occurs more than once"):
        datasets.read(folder, Choice())
    climbing = "1,../x.png,masks/000.png,g,train,a disc"
    table.write_text("\n".join([*lines[:3], climbing]), encoding="utf-8")
    with pytest.raises(BadLayout, match=r"row 4: \.\./x.png points outside"):
        datasets.read(folder, Choice())


@pytest.mark.skipif(not (SHARED / "clinicdb").is_dir(), reason="the measuring data are not beside the repository")
def test_the_published_split_of_clinicdb_tears_every_test_sequence_apart():
    folder = SHARED / "clinicdb"
    torn, whole = (datasets.read(folder, Choice(split=split)) for split in datasets.SPLITS)
    assert [len(torn.train), len(torn.val), len(torn.test)] == [490, 61, 61]
    assert torn.notes == ("clinicdb: 25 of 25 test groups also have training images, so scores are too high.",)
    assert len(whole.train) == 490 and whole.notes == ()
