"""Writing a labelled folder: `pairs.csv` beside images and masks, whole or not at all, and what it was made of."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from backend.context import Context
from backend.errors import FolderUnusable, NothingLabelled
from backend.files import writing
from backend.labelled_folder.scratch import Frozen, OnProgress

COLUMNS = ("id", "image", "mask", "group", "prompt")
MADE_OF = "made_of.json"
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


@dataclass(frozen=True)
class Labelled:
    """A labelled folder: how much it holds, what was left out and why, and what it was made of."""

    folder: Path
    rows: int
    images: int
    groups: int
    left_out: dict[str, str]
    made_of: dict[str, Any]
    written_at: str


def existing(folder: Path, made_of: Mapping[str, Any]) -> Labelled | None:
    """The folder if it is there already and was made of the same; None where nothing is.

    A simulation that goes on needs the images it began with, whatever people annotated since. FolderUnusable where
    anything else lies there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        said = json.loads((folder / MADE_OF).read_text(encoding="utf-8"))
        known = Labelled(folder=folder, **said)
    except (OSError, ValueError, TypeError):
        raise FolderUnusable(f"{folder} is not a labelled folder of ours; name another one with --folder") from None
    if known.made_of != made_of:
        raise FolderUnusable(
            f"{folder} was made of {_differing(known.made_of, made_of)}; name another --out or --folder, or remove it"
        )
    return known


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder for unfinished work beside the one that is to be; it is gone afterwards."""
    try:
        with writing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            work = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-")
    except OSError as error:
        raise FolderUnusable(f"{folder} cannot be written ({error.strerror}); name another one") from error
    with work as name:
        yield Path(name)


def write(
    ctx: Context, frozen: Frozen, labels: tuple[str, ...], folder: Path, work: Path, made_of: dict[str, Any],
    on_progress: OnProgress,
) -> Labelled:  # fmt: skip
    """Write what was frozen, a row for each image and label; the folder appears whole. NothingLabelled, FolderUnusable.

    Images and masks are copied byte by byte. Groups are whole tasks' groups, so no image and no patient straddles.
    """
    if not frozen.items:
        raise NothingLabelled(_why_nothing(frozen))
    fresh = work / "labelled"
    with writing(folder.parent):
        for name in ("images", "masks"):
            (fresh / name).mkdir(parents=True)
        rows = list(_copied(ctx, frozen, labels, fresh, on_progress))
        with (fresh / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        done = Labelled(
            folder=folder,
            rows=len(rows),
            images=len(frozen.groups),
            groups=len(set(frozen.groups.values())),
            left_out=frozen.left_out,
            made_of=made_of,
            written_at=ctx.now().isoformat(timespec="seconds"),
        )
        said = {name: value for name, value in dataclasses.asdict(done).items() if name != "folder"}
        (fresh / MADE_OF).write_text(json.dumps(said, indent=2), encoding="utf-8")
        try:
            fresh.replace(folder)
        except OSError as error:  # another process was faster
            raise FolderUnusable(f"{folder} cannot be written ({error.strerror}); name another one") from error
    return done


def _copied(
    ctx: Context, frozen: Frozen, labels: tuple[str, ...], fresh: Path, on_progress: OnProgress
) -> Iterator[dict[str, str]]:
    for done, item in enumerate(frozen.items):
        on_progress("copying images and masks", done, len(frozen.items))
        alone = len(labels) == 1
        mask = f"masks/{item.task_id}.png" if alone else f"masks/{item.task_id}-{labels.index(item.label) + 1}.png"
        shutil.copyfile(ctx.files.check("masks", item.mask_sha256), fresh / mask)
        yield {
            "id": f"{item.task_id}" if alone else f"{item.task_id} {item.label}",
            "image": _copied_image(ctx, item.task_id, item.image_sha256, fresh),
            "mask": mask,
            "group": _a_group(frozen.groups[item.task_id]),
            "prompt": item.prompt,
        }


def _copied_image(ctx: Context, task_id: int, sha256: str, fresh: Path) -> str:
    source = ctx.files.check("images", sha256)
    with Image.open(source) as image:  # its header alone: the files are named by their sha256
        kind = image.format or "PNG"
    name = f"images/{task_id}{_SUFFIXES.get(kind, f'.{kind.lower()}')}"
    if not (fresh / name).exists():  # each label of a task has it
        shutil.copyfile(source, fresh / name)
    return name


def _a_group(key: str) -> str:
    return key.strip() or repr(key)  # readers of tables take blanks for nothing


def _why_nothing(frozen: Frozen) -> str:
    if not frozen.left_out:
        return (
            "no image has an answer that can be used; annotate some and submit them, those with nothing in them as "
            "well (the log names answers that could not be read)"
        )
    reasons = list(dict.fromkeys(frozen.left_out.values()))[:3]
    return f"all {len(frozen.left_out)} answers are left out: {'; '.join(reasons)}"


def _differing(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What each was made of, as far as the other was not."""
    here, there = ([(name, one.get(name, "none")) for name in {**known, **wanted}] for one in (known, wanted))
    differing = [(name, was, now) for (name, was), (_, now) in zip(here, there, strict=True) if was != now]
    return ", ".join(f"{name.replace('_', ' ')} {was} (not {now})" for name, was, now in differing)
