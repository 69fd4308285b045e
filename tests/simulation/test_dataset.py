"""Every way a labelled folder can be wrong is answered by name."""

from pathlib import Path

import pytest

from simulation.dataset import read_pairs
from simulation.errors import BadDataset
from tests.simulation.fakes import write_folder


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
