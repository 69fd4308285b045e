"""A labelled folder → examples for training, validation and test. Two layouts are known.

The published one has `{Train,Val,Test}_Folder/{img,label}` beside `Prompts_Folder/*.xlsx`; the other is a folder with
`pairs.csv`. Files are only looked for here; the model room opens them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model import Example
from protocols import splits, tables
from protocols.errors import BadLayout, BadPlan

DESIGNS = ("original", "contradictory", "missing_location", "overdescriptive", "underdescriptive")
SPLITS = ("published", "grouped")
# With no published split to go by, of 100 images.
USUAL_SIZES = {"train": 80, "val": 10, "test": 10}

XLSX_COLUMNS = {"image": ("Image",), "prompt": ("Description",), "mask": ("Ground Truth", "Mask")}
CSV_COLUMNS = {name: (name,) for name in ("id", "image", "mask", "group", "prompt")}


@dataclass(frozen=True)
class Choice:
    """Which images of a data set, and under which prompts.

    percent: of the training and validation images; split: "published" or "grouped"; seed: decides the groups of a
    grouped split and which images are the percentage, where no published list does; design: of the test prompts;
    prompt: one text that replaces every prompt.
    """

    percent: int = 100
    split: str = "published"
    seed: int = 0
    design: str = "original"
    prompt: str | None = None

    @property
    def prompts(self) -> str:
        """The prompts in words, for a table."""
        return self.design if self.prompt is None else f"“{self.prompt}”"


@dataclass(frozen=True)
class Parts:
    """The examples of each part, and what about the tables a reader of the results should know."""

    train: tuple[Example, ...]
    val: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = ()


def name_of(folder: Path) -> str:
    """What a data set is called: the last part of its folder's path."""
    return folder.resolve().name


def read(folder: Path, choice: Choice) -> Parts:
    """All three parts. Raises BadLayout naming file and row, and BadPlan where the choice does not fit the layout."""
    parts = _pairs(folder, choice) if _has_pairs(folder) else _released(folder, choice, splits.PARTS)
    for part, examples in (("train", parts.train), ("test", parts.test)):
        if not examples:
            raise BadLayout(f"{folder} has no {part} images; this protocol needs them, so give another data set")
    return parts


def read_test(folder: Path, choice: Choice) -> Parts:
    """The test part alone: nothing else of the folder needs to be there. Raises as `read` does."""
    parts = _pairs(folder, choice) if _has_pairs(folder) else _released(folder, choice, ("test",))
    if not parts.test:
        raise BadLayout(f"{folder} has no test images; give another data set")
    return Parts((), (), parts.test, parts.notes)


def _has_pairs(folder: Path) -> bool:
    if (folder / "pairs.csv").is_file():
        return True
    if (folder / "Prompts_Folder").is_dir():
        return False
    raise BadLayout(f"{folder} holds neither pairs.csv nor Prompts_Folder; give the folder of one data set")


# ---- the published layout -----------------------------------------------------------------------------------------


def _released(folder: Path, choice: Choice, wanted: Sequence[str]) -> Parts:
    if choice.split != "published":
        raise BadPlan(f"{folder} does not say which images belong to one patient; only --split published is possible")
    notes: list[str] = []
    found = {part: _released_part(folder, part, choice, notes) if part in wanted else () for part in splits.PARTS}
    notes += _overlaps(folder, found)
    return Parts(found["train"], found["val"], found["test"], tuple(notes))


def _released_part(folder: Path, part: str, choice: Choice, notes: list[str]) -> tuple[Example, ...]:
    rows = tables.read(_prompt_table(folder, part, choice), XLSX_COLUMNS)
    once = {row.cells["image"]: row for row in reversed(rows)}  # the first row of an image counts
    if len(once) < len(rows):
        notes.append(f"{name_of(folder)}: {len(rows) - len(once)} repeated row(s) of {part} count once.")
    files = folder / f"{part.capitalize()}_Folder"
    return tuple(
        _example(
            image=_inside(files / "img", row.cells["image"], row.where),
            mask=_inside(files / "label", row.cells["mask"], row.where),
            prompt=choice.prompt or row.cells["prompt"],
            group=row.cells["image"],
        )
        for _, row in sorted(once.items())
    )


def _prompt_table(folder: Path, part: str, choice: Choice) -> Path:
    """The .xlsx file of a part. Test has one per prompt design, the others one per percentage."""
    of_percent = "" if choice.percent == 100 else f"_{choice.percent}"
    ending = f"_{choice.design}" if part == "test" else of_percent
    path = folder / "Prompts_Folder" / f"{part.capitalize()}_text{ending}.xlsx"
    if not path.is_file() and ending:
        there = ", ".join(sorted(file.name for file in path.parent.glob(f"{part.capitalize()}_text*.xlsx"))) or "none"
        raise BadPlan(f"{path} does not exist, so {name_of(folder)} has no such list; there are {there}")
    return path


def _overlaps(folder: Path, found: dict[str, tuple[Example, ...]]) -> list[str]:
    names = {part: {example.image.name for example in examples} for part, examples in found.items()}
    shared = {part: len(names[part] & names["test"]) for part in ("train", "val")}
    return [
        f"{name_of(folder)}: {number} file name(s) of test also stand in {part}; they are kept, as published."
        for part, number in shared.items()
        if number
    ]


# ---- pairs.csv ----------------------------------------------------------------------------------------------------


def _pairs(folder: Path, choice: Choice) -> Parts:
    if choice.design != "original":
        raise BadPlan(f"{folder}/pairs.csv has one prompt per image and no {choice.design} ones; leave --prompts out")
    table = folder / "pairs.csv"
    rows = tables.read(table, CSV_COLUMNS, optional={"published_split": ("published_split",)})
    ids = [row.cells["id"] for row in rows]
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    if repeated:
        raise BadLayout(f"{table}: id {', '.join(repeated[:5])} occurs more than once; ids must be unique")
    published = _published_split(table, rows, needed=choice.split == "published")
    sizes = {part: published.count(part) for part in splits.PARTS} if published else _usual_sizes(len(rows))
    groups = [row.cells["group"] for row in rows]
    parts = published if choice.split == "published" else splits.grouped(groups, sizes, choice.seed)
    return _chosen(folder, rows, parts, sizes, choice)


def _chosen(
    folder: Path, rows: Sequence[tables.Row], parts: Sequence[str], sizes: dict[str, int], choice: Choice
) -> Parts:
    """The percentage is one of the intended sizes, so that two splits train on equally many images."""
    found: dict[str, tuple[Example, ...]] = {}
    for part in splits.PARTS:
        of_part = [row for row, its in zip(rows, parts, strict=True) if its == part]
        whole = sizes["train"] if part == "train" else len(of_part)
        size = whole if part == "test" else splits.count(choice.percent, whole)
        kept = splits.subset([row.cells["id"] for row in of_part], size, choice.seed)
        found[part] = tuple(_pair(folder, of_part[position], choice) for position in kept)
    return Parts(found["train"], found["val"], found["test"], tuple(_straddling(folder, found)))


def _pair(folder: Path, row: tables.Row, choice: Choice) -> Example:
    cells = row.cells
    image, mask = (_inside(folder, cells[name], row.where) for name in ("image", "mask"))
    return _example(image, mask, choice.prompt or cells["prompt"], cells["group"])


def _published_split(table: Path, rows: Sequence[tables.Row], needed: bool) -> list[str]:
    """Its part for each image, or nothing where the file does not give one to every image."""
    parts = [row.cells["published_split"] for row in rows]
    if "" in parts or "train" not in parts or "test" not in parts:
        if needed:
            raise BadPlan(f"{table} has no published split of every image; use --split grouped")
        return []
    strange = sorted(set(parts) - set(splits.PARTS))
    if strange:
        raise BadLayout(f"{table}: published_split holds {', '.join(strange)}; it may hold {', '.join(splits.PARTS)}")
    return parts


def _usual_sizes(whole: int) -> dict[str, int]:
    held = {part: splits.count(USUAL_SIZES[part], whole) for part in ("val", "test")}
    return {"train": whole - sum(held.values()), **held}


def _straddling(folder: Path, found: dict[str, tuple[Example, ...]]) -> list[str]:
    trained = {example.group for example in found["train"]}
    tested = {example.group for example in found["test"]}
    both = len(tested & trained)
    if not both:
        return []
    return [
        f"{name_of(folder)}: {both} of {len(tested)} test groups also have training images, so scores are too high."
    ]


# ---- both ---------------------------------------------------------------------------------------------------------


def _example(image: Path, mask: Path, prompt: str, group: str) -> Example:
    # Published prompts carry line ends and double blanks, the traces of words taken out.
    return Example(image, mask, " ".join(prompt.split()), group)


def _inside(folder: Path, name: str, where: str) -> Path:
    """The file of that name below the folder. Links are followed; a name that climbs out is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BadLayout(f"{where}: {name} points outside {folder}; name a file inside it")
    path = folder / name
    if not path.is_file():
        raise BadLayout(f"{where}: {path} does not exist; fetch the images of this table, or remove the row")
    return path


def groups_of(examples: Iterable[Example]) -> int:
    """How many groups the examples come from."""
    return len({example.group for example in examples})
