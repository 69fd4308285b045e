"""Choosing images: all of the groups before more of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import data
from demo.errors import BadData
from simulation.dataset import Pair


def pair(name: str, group: str, folder: Path = Path()) -> Pair:
    return Pair(id=name, image=folder / f"{name}.png", mask=folder / f"{name}-mask.png", group=group, prompt="a lesion")


def test_every_group_is_there_before_any_comes_twice():
    pairs = [pair(f"{group}{i}", group) for group in "abc" for i in range(4)]
    assert [p.id for p in data.subset(pairs, 3)] == ["a0", "b0", "c0"]
    assert [p.id for p in data.subset(pairs, 5)] == ["a0", "a1", "b0", "b1", "c0"]


def test_the_order_of_the_file_is_kept_and_asking_for_more_gives_all():
    pairs = [pair(f"{i}", "xyx"[i]) for i in range(3)]
    assert data.subset(pairs, 10) == tuple(pairs)


def test_phantoms_are_called_synthetic(tmp_path: Path):
    found = data.load(None, 4, tmp_path)
    assert found.synthetic
    assert len(found.pairs) == 4
    assert data.true_mask(found.pairs[0]).any()


def test_prompts_that_tell_where_the_lesion_lies_are_not_used(tmp_path: Path):
    rows = ["id,image,mask,group,prompt", "1,a.png,a.png,g,upper left", "2,a.png,a.png,g,lower right"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert data.load(tmp_path, 2, tmp_path).prompt == data.PLAIN_PROMPT


def test_a_folder_without_a_table_is_refused(tmp_path: Path):
    with pytest.raises(BadData, match=r"pairs\.csv"):
        data.load(tmp_path, 2, tmp_path)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "x-mask.png")
    with pytest.raises(BadData, match=r"x-mask\.png"):
        data.true_mask(pair("x", "g", tmp_path))
