"""Rows of .csv and .xlsx files, and what is said of damaged ones."""

import csv
from pathlib import Path

import pytest

from protocols import tables
from protocols.errors import BadLayout
from tests.protocols.folders import HEADER, write_table

COLUMNS = {"image": ("Image",), "mask": ("Ground Truth", "Mask")}


def test_both_kinds_of_file_give_the_same_rows(tmp_path: Path):
    header, lines = ("Mask", "other", "Image"), [("m1", "", " a b.png "), ("", "", ""), ("m2", "x, y", "c.png\n")]
    write_table(tmp_path / "t.xlsx", [[cell or None for cell in line] for line in lines], header)
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *lines])
    found = {ending: tables.read(tmp_path / f"t.{ending}", COLUMNS) for ending in ("csv", "xlsx")}
    for ending, rows in found.items():
        assert [row.cells for row in rows] == [{"image": "a b.png", "mask": "m1"}, {"image": "c.png", "mask": "m2"}]
        assert rows[0].where == f"{tmp_path / 't'}.{ending}, row 2"
    assert found["xlsx"][1].where.endswith("row 4"), "the blank row counts"


def test_a_header_alone_is_no_rows_and_an_optional_column_may_be_missing(tmp_path: Path):
    write_table(tmp_path / "empty.xlsx", [])
    assert tables.read(tmp_path / "empty.xlsx", COLUMNS) == []
    write_table(tmp_path / "t.xlsx", [("a", "text", "m")])
    assert tables.read(tmp_path / "t.xlsx", COLUMNS, {"part": ("Part",)})[0].cells["part"] == ""
    write_table(tmp_path / "p.xlsx", [("a", "text", "m", "val"), ("b", "text", "m", None)], (*HEADER, "Part"))
    rows = tables.read(tmp_path / "p.xlsx", COLUMNS, {"part": ("Part",)})
    assert [row.cells["part"] for row in rows] == ["val", ""]


def test_an_empty_cell_is_named_by_row_and_column(tmp_path: Path):
    write_table(tmp_path / "t.xlsx", [("a", "text", "m"), ("b", "text", None)])
    with pytest.raises(BadLayout, match=r"t\.xlsx, row 3: nothing in column Ground Truth; fill it in"):
        tables.read(tmp_path / "t.xlsx", COLUMNS)


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path):
    write_table(tmp_path / "t.xlsx", [("a", "m")], ("Image", "Label"))
    with pytest.raises(BadLayout, match="no column Ground Truth or Mask, its header holds Image, Label"):
        tables.read(tmp_path / "t.xlsx", COLUMNS)
    with pytest.raises(BadLayout, match="does not exist"):
        tables.read(tmp_path / "none.xlsx", COLUMNS)


def test_nothing_in_a_workbook_is_computed(tmp_path: Path):
    write_table(tmp_path / "t.xlsx", [('="a"&".png"', "text", "m")])
    with pytest.raises(BadLayout, match="row 2: nothing in column Image"):
        tables.read(tmp_path / "t.xlsx", COLUMNS)


def test_a_damaged_file_is_one_named_error_wherever_it_is_cut(tmp_path: Path):
    path = tmp_path / "t.xlsx"
    write_table(path, [(f"{number}.png", "a text", "m") for number in range(50)])
    whole = path.read_bytes()
    for share in range(0, 100, 7):
        path.write_bytes(whole[: len(whole) * share // 100])
        with pytest.raises(BadLayout, match=r"no readable \.xlsx"):
            tables.read(path, COLUMNS)
    broken = bytearray(whole)
    broken[100:400] = bytes(300)
    path.write_bytes(broken)
    with pytest.raises(BadLayout, match=r"no readable \.xlsx"):
        tables.read(path, COLUMNS)
    (tmp_path / "t.csv").write_bytes(b"Image,Mask\n\xff\xfe,m\n")
    with pytest.raises(BadLayout, match="UTF-8"):
        tables.read(tmp_path / "t.csv", COLUMNS)


def test_what_unpacks_to_far_more_than_a_table_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_table(tmp_path / "t.xlsx", [("a", "text", "m")])
    monkeypatch.setattr(tables, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(BadLayout, match="unpacks to"):
        tables.read(tmp_path / "t.xlsx", COLUMNS)
