"""Every way a labelled folder can be wrong is answered by name."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simulation.dataset import fewer, fingerprint, read_folder, read_pairs
from simulation.errors import BadDataset
from simulation.fitting import require_fitting
from tests.simulation.fakes import make_pairs, write_folder


def rewrite(folder: Path, old: str, new: str) -> None:
    table = folder / "pairs.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


def test_rows_come_in_file_order_and_further_columns_are_ignored(tmp_path: Path) -> None:
    pairs = read_pairs(write_folder(tmp_path, 4))
    assert [(pair.id, pair.group, pair.prompt) for pair in pairs] == [(str(i), f"g{i // 2}", "x") for i in range(4)]
    assert all(pair.image == pair.mask == tmp_path / f"{pair.id}.png" for pair in pairs)


def test_a_prompt_with_commas_and_a_byte_order_mark_survive(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    rewrite(tmp_path, "id,", "\ufeffid,")
    rewrite(tmp_path, ",x\n", ',"a round polyp, at the bottom"\n')
    assert read_pairs(tmp_path)[0].prompt == "a round polyp, at the bottom"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("group", "patient", r"no column group"),
        ("1,1.png,1.png", "1,nine.png,1.png", r"line 3: .*nine\.png does not exist"),
        ("1,1.png,1.png", "1,1.png,../1.png", r"line 3: \.\./1\.png points outside"),
        ("1,1.png,1.png", "1,/1.png,1.png", r"line 3: /1\.png points outside"),
        ("1,1.png,1.png", "0,1.png,1.png", r"id 0 occurs more than once"),
        ("1,1.png,1.png,g0", "1,1.png,1.png,", r"line 3: nothing in column group"),
        ("1,1.png,1.png,g0,,x", "1,1.png", r"line 3: nothing in column mask, group, prompt"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_folder(tmp_path, 3)
    rewrite(tmp_path, old, new)
    with pytest.raises(BadDataset, match=message):
        read_pairs(tmp_path)


def test_no_table_no_rows_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"pairs\.csv does not exist"):
        read_pairs(tmp_path)
    with pytest.raises(BadDataset, match="no rows"):
        read_pairs(write_folder(tmp_path, 0))
    (tmp_path / "pairs.csv").write_bytes(b"")
    with pytest.raises(BadDataset, match="no column id"):
        read_pairs(tmp_path)
    (tmp_path / "pairs.csv").write_bytes(b"id,image,mask,group,prompt\n\xff\xfe\x00")
    with pytest.raises(BadDataset, match="UTF-8"):
        read_pairs(tmp_path)


def write_bare(folder: Path, images: str, masks: str) -> Path:
    """images/ and masks/ with empty files of these names, in words."""
    for part, names in (("images", images), ("masks", masks)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in names.split():
            (folder / part / name).touch()
    return folder


def test_a_folder_with_a_table_is_read_by_it_and_a_prompt_takes_the_place_of_all(tmp_path: Path) -> None:
    write_folder(write_bare(tmp_path, "z.png", "z.png"), 3)
    assert read_folder(tmp_path) == read_pairs(tmp_path)
    assert [pair.prompt for pair in read_folder(tmp_path, "a polyp")] == ["a polyp"] * 3
    assert [pair.group for pair in read_folder(tmp_path, "a polyp")] == ["g0", "g0", "g1"]


def test_without_a_table_files_of_the_same_name_are_pairs_and_each_is_its_own_group(tmp_path: Path) -> None:
    write_bare(tmp_path, "b.jpg a.PNG notes.txt", "a.png b.png Thumbs.db")
    pairs = read_folder(tmp_path, "a polyp")
    assert [(pair.id, pair.image.name, pair.mask.name) for pair in pairs] == [
        ("a", "a.PNG", "a.png"),
        ("b", "b.jpg", "b.png"),
    ]
    assert [(pair.group, pair.prompt) for pair in pairs] == [("a", "a polyp"), ("b", "a polyp")]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("a.png b.png", "a.png", "b without a partner"),
        ("a.png", "a.png c.png", "c without a partner"),
        ("", "", "no pictures"),
        ("notes.txt", "notes.txt", "no pictures"),
        ("a.png a.jpg b.png", "a.png b.png", "a twice"),
    ],
)
def test_files_that_are_no_pairs_are_named(tmp_path: Path, images: str, masks: str, message: str) -> None:
    with pytest.raises(BadDataset, match=message):
        read_folder(write_bare(tmp_path, images, masks), "a polyp")


def test_without_a_table_there_has_to_be_a_prompt(tmp_path: Path) -> None:
    for prompt in (None, ""):
        with pytest.raises(BadDataset, match="give --prompt"):
            read_folder(write_bare(tmp_path, "a.png", "a.png"), prompt)
    with pytest.raises(BadDataset, match=r"pairs\.csv does not exist"):
        read_folder(tmp_path / "nowhere", "a polyp")


@given(st.integers(1, 30), st.integers(1, 40), st.randoms())
def test_fewer_pairs_are_the_same_ones_whatever_the_order(n: int, most: int, random: Random) -> None:
    pairs = make_pairs(n)
    kept = fewer(pairs, most)
    assert len(kept) == min(n, most)
    assert kept == [pair for pair in pairs if pair in kept], "in their old order"
    shuffled = random.sample(pairs, n)
    assert {pair.id for pair in fewer(shuffled, most)} == {pair.id for pair in kept}
    assert set(fewer(pairs, most + 1)) >= set(kept), "a larger choice holds the smaller one"
    assert fewer(pairs, None) == pairs


def test_the_fingerprint_tells_of_ids_groups_and_prompts_and_of_no_folder(tmp_path: Path) -> None:
    one, two = (read_pairs(write_folder(tmp_path / name, 3)) for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    rewrite(tmp_path / "two", ",g1,", ",g0,")
    assert fingerprint(read_pairs(tmp_path / "two")) != fingerprint(one)
    assert fingerprint(one[:2]) != fingerprint(one)


def test_a_mask_of_another_size_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    pairs = [replace(pair, mask=tmp_path / f"m{pair.id}.png") for pair in read_pairs(write_folder(tmp_path, 4))]
    for pair in pairs:
        Image.new("L", (6, 4)).save(pair.image)
        Image.new("L", (6, 4)).save(pair.mask)
    require_fitting(pairs)
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        Image.new("L", (4, 6)).save(pairs[0].image, kind, exif=turned)  # shown 6 wide, as its mask is
        require_fitting(pairs)
    Image.new("L", (4, 6)).save(pairs[1].mask)
    pairs[2].image.write_bytes(b"no image")
    pairs[3].mask.unlink()
    with pytest.raises(BadDataset, match=r"^1 has an image of 6 x 4 px and a mask of 4 x 6 px; 2 cannot .*; 3 cannot "):
        require_fitting(pairs)
