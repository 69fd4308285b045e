"""What a person means by DATA: a labelled folder, an export of a project, or a project that is connected."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from backend.context import Context
from backend.errors import BadQuestion, BadSettings, ImageNotInFolder
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.exports import Export, read_export
from backend.label_studio.image_folder import ImageFolder
from backend.label_studio.payloads import parse_label_config
from backend.labelled_folder import folder as writing
from backend.labelled_folder import scratch
from backend.labelled_folder.folder import Labelled
from backend.labelled_folder.scratch import OnProgress
from backend.settings import Settings
from backend.store import projects
from backend.tables import Project

_PROJECT_ID = 1  # of an export, in the database of a moment
_NOBODY = "http://label-studio.invalid"  # what is asked for images that lie in a folder


@dataclass(frozen=True)
class Source:
    """How to read an export: where its images lie, and what its project said that the file does not."""

    images: Path | None = None
    label_config: Path | None = None
    group_field: str | None = None
    prompt_field: str | None = None


def of_data(
    data: str,
    folder: Path,
    source: Source,
    load: Callable[[], Settings],
    build: Callable[[], Context],
    on_progress: OnProgress,
) -> Path | Labelled:
    """A labelled folder as it is, or the one written at `folder` from an export or a project.

    A number is always a project's id. BadQuestion where DATA is none of these, or an option does not belong to it.
    """
    path = Path(data).expanduser()
    if not data.isdecimal() and path.is_file():
        return of_export(load(), path, folder, source, on_progress)
    if source != Source():
        raise BadQuestion(f"--images, --label-config, --group-field and --prompt-field are for an export, not {data}")
    if not data.isdecimal() and path.is_dir():
        return path
    ctx = build()
    try:
        return of_project(ctx, _project_id(ctx, data), folder, on_progress)
    finally:
        ctx.close()


def of_project(ctx: Context, project_id: int, folder: Path, on_progress: OnProgress) -> Labelled:
    """What a round of the project would train and be evaluated on now, as a labelled folder. Its rows do not change.

    A folder written before is taken as it is. Raises NotConnected, NothingLabelled, FolderUnusable, and what fetching
    images raises.
    """
    with ctx.store.read() as s:
        labels = parse_label_config(projects.get(s, project_id).label_config).labels
    made_of = {"project": project_id, "of": ctx.settings.label_studio_url, "consensus": ctx.settings.consensus}
    if (known := writing.existing(folder, made_of)) is not None:
        return known
    with writing.workplace(folder) as work, scratch.copied(ctx, project_id, work) as copy:
        frozen = scratch.freeze(copy, project_id, on_progress)
        return writing.write(copy, frozen, labels, folder, work, made_of, on_progress)


def of_export(settings: Settings, path: Path, folder: Path, source: Source, on_progress: OnProgress) -> Labelled:
    """The same of a JSON file that Label Studio exported; its images come from a folder or from Label Studio.

    Raises NotAnExport, NothingLabelled, ImageNotInFolder, FolderUnusable, BadSettings, and what fetching images raises.
    """
    made_of = {"export": _sha256(path), "consensus": settings.consensus} | _options(source)
    if (known := writing.existing(folder, made_of)) is not None:
        return known
    images = ImageFolder(source.images) if source.images is not None else None
    export = read_export(path, _PROJECT_ID, _text_of(source.label_config))
    labels = parse_label_config(export.label_config).labels
    with (
        writing.workplace(folder) as work,
        scratch.told(_able_to_fetch(settings, images), export, _project(path, export, source), work) as ctx,
    ):
        frozen = scratch.freeze(_with_images(ctx, images), _PROJECT_ID, on_progress)
        return writing.write(ctx, frozen, labels, folder, work, made_of, on_progress)


def _project_id(ctx: Context, data: str) -> int:
    if data.isdecimal():
        return int(data)
    with ctx.store.read() as s:
        ids = [project.id for project in projects.every(s) if project.title == data]
    if len(ids) != 1:
        found = f"projects {', '.join(map(str, ids))} have that title: name one by its id" if ids else "there is none"
        raise BadQuestion(
            f"{data!r} must be a labelled folder, a file exported from Label Studio, or the id or title of a connected "
            f"project; {found}"
        )
    return ids[0]


def _project(path: Path, export: Export, source: Source) -> Project:
    """As connecting makes one, with the names of fields that it takes at first."""
    return Project(
        id=_PROJECT_ID, title=path.name, label_config=export.label_config, prompts={},
        group_field=source.group_field or "group", prompt_field=source.prompt_field or "prompt",
        connected_at=datetime.now(UTC), overlapping=True,
    )  # fmt: skip


def _able_to_fetch(settings: Settings, images: ImageFolder | None) -> Settings:
    if images is not None:
        return settings.model_copy(update={"label_studio_url": _NOBODY, "label_studio_token": SecretStr("none")})
    if not settings.label_studio_url or not settings.label_studio_token.get_secret_value():
        raise BadSettings(
            "name the folder with the images by --images, or set WARDROUND_LABEL_STUDIO_URL and "
            "WARDROUND_LABEL_STUDIO_TOKEN to fetch them"
        )
    return settings


def _with_images(ctx: Context, images: ImageFolder | None) -> Context:
    if images is None:
        return ctx
    _require_images(images, ctx)
    # Of all that a client does, only fetching is asked of it.
    return dataclasses.replace(ctx, label_studio=cast(LabelStudioClient, images))


def _require_images(images: ImageFolder, ctx: Context) -> None:
    """All that is missing at once, rather than one after the other."""
    tasks = [task for task in scratch.answered(ctx, _PROJECT_ID) if task.image_url]
    missing = [f"{task.image_url} of task {task.id}" for task in tasks if images.find(task.image_url) is None]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ImageNotInFolder(
            f"--images holds no {shown}; put them there under these names, with or without what Label Studio put "
            "before them, or leave their tasks out of the export (links out of the folder are not followed)"
        )


def _text_of(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadQuestion(f"{path} cannot be read as a label config in XML ({error})") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise BadQuestion(f"{path} cannot be read ({error.strerror})") from error


def _options(source: Source) -> dict[str, Any]:
    """What decides what is read; where the images lie does not."""
    given = {"group_field": source.group_field, "prompt_field": source.prompt_field}
    given["label_config"] = None if source.label_config is None else _sha256(source.label_config)
    return {name: value for name, value in given.items() if value is not None}
