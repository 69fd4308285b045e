"""ENTRY POINT: the `wardround` command."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperCommand

from backend import connect as connecting
from backend import (
    context,
    doctor,
    forecast,
    label_errors,
    labelled_folder,
    logs,
    metrics,
    paying,
    processes,
    report,
    retention,
    rounds,
    settings,
)
from backend import disconnect as disconnecting
from backend import effort as ledger
from backend.context import Context
from backend.errors import BadQuestion, BadSettings, WardroundError
from backend.store import Store
from backend.tables import Lane

if TYPE_CHECKING:
    from fastapi import FastAPI

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Active learning for medical image segmentation in Label Studio. Settings come from WARDROUND_* variables.",
)
rounds_cli = typer.Typer(no_args_is_help=True, help="List, start and show rounds.")
cli.add_typer(rounds_cli, name="rounds")

RoundId = Annotated[int, typer.Argument(help="Id of the round.")]
ProjectId = Annotated[int, typer.Argument(help="Id of the Label Studio project.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

EX_TEMPFAIL = 75  # the round goes on in another process


def main() -> NoReturn:
    """Run the command; expected errors become one line on stderr and exit status 1."""
    try:
        cli(standalone_mode=True)
    except WardroundError as error:
        sys.exit(f"wardround: {error}")
    sys.exit(0)


@cli.command()
def migrate() -> None:
    """Create the database or bring its schema up to date. Every other command does this as well."""
    loaded = settings.load()
    store = Store(loaded.database_url)
    store.migrate()
    typer.echo(f"the schema of {store.url.render_as_string(hide_password=True)} is up to date")


@cli.command()
def api() -> None:
    """Serve the HTTP API that Label Studio talks to."""
    import uvicorn

    processes.let_waiting_threads_sleep()
    loaded = settings.load()
    loaded.require("api_token", "webhook_secret")
    logs.set_up(loaded)
    if loaded.api_workers > 1:
        metrics.set_up_multiprocess(loaded.data_dir / "metrics" / "api")
        context.build(loaded).close()  # once, before all of them migrate and fail at the same time
    uvicorn.run(
        "backend.cli:served", factory=True, workers=loaded.api_workers, host=loaded.api_host, port=loaded.api_port,
        log_config=None, access_log=False,
    )  # fmt: skip


def served() -> FastAPI:
    """The API of one process: uvicorn calls it in each."""
    from backend.app import create_app

    loaded = settings.load()
    logs.set_up(loaded)
    return create_app(context.build(loaded))


@cli.command()
def worker(
    lanes: Annotated[
        str, typer.Option(help="Kinds of work to take: label-studio, training, scoring. Default: all.")
    ] = "",
) -> None:
    """Run Celery tasks: rounds and reconciliation. One a GPU; start more, on other machines too, to share the work."""
    if lanes:
        os.environ["WARDROUND_LANES"] = lanes
    loaded = _ready()
    if loaded.metrics_port:
        # A folder of its own: what the rounds' processes count is read from there.
        name = f"worker-{socket.gethostname()}-{loaded.metrics_port}"
        metrics.set_up_multiprocess(loaded.data_dir / "metrics" / name)
    from backend.worker import threads_for

    wanted = [Lane(name) for name in loaded.lanes.split(",")]
    # Threads: most wait for a round's process while the others look after the rest. Nothing here touches torch.
    _become_celery(
        "worker", "--pool=threads", f"--concurrency={threads_for(wanted)}", "--without-gossip", "--without-mingle",
        f"--queues={','.join(context.queue_of(lane) for lane in wanted)}", f"--hostname=wardround-{os.getpid()}@%h",
    )  # fmt: skip


@cli.command()
def beat() -> None:
    """Tick: have a worker look for what is due or stalled, and pull from Label Studio. Two of them do no harm."""
    loaded = _ready()
    _become_celery("beat", "--scheduler=celery.beat:Scheduler", "--pidfile=", f"--max-interval={_tick(loaded)}")


Parent = Annotated[int, typer.Option(help="Process id of the worker.")]


@cli.command("run-round", hidden=True)
def run_round(
    round_id: int,
    parent: Parent = 0,
    lane: Annotated[Lane | None, typer.Option(help="Stop before a step of another lane.")] = None,
) -> None:
    """Run one round in this process; the worker starts it, and its end is ours."""
    ctx, stop = _begin_child(parent)
    with _ending_as_scripts_expect():
        rounds.run(ctx, round_id, stop, lane)


@cli.command("score-shards", hidden=True)
def score_shards(round_id: int, parent: Parent = 0) -> None:
    """Score shards of a round that another process runs."""
    ctx, stop = _begin_child(parent)
    with _ending_as_scripts_expect(), logs.bound(round=round_id, step="rescore"):
        rounds.help_with(ctx, round_id, stop)


def _begin_child(parent: int) -> tuple[Context, threading.Event]:
    if parent:
        processes.die_with_parent(parent)
    processes.be_polite()
    processes.let_waiting_threads_sleep()
    stop = processes.stop_on_sigterm()
    ctx = _context()
    if ctx.settings.threads:
        import torch

        torch.set_num_threads(ctx.settings.threads)
    return ctx, stop


@contextmanager
def _ending_as_scripts_expect() -> Iterator[None]:
    try:
        yield
    except WardroundError as error:
        if not error.retryable:
            raise
        sys.exit(EX_TEMPFAIL)


@cli.command()
def connect(
    project_id: ProjectId,
    prompt: Annotated[list[str], typer.Option(help="LABEL=TEXT: what the model is told to look for.")] = [],  # noqa: B006
    group_field: Annotated[
        str | None, typer.Option(help="Key of task data naming the patient, video or volume; at first 'group'.")
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Key of task data with a prompt of its own; at first 'prompt'.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Cron expression that opens rounds, such as '0 2 * * 1-5'; '' for never.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="Time zone of the schedule, such as Europe/Zurich.")] = None,
    overlapping: Annotated[
        bool | None,
        typer.Option("--overlapping/--exclusive", help="Whether one pixel may have several labels; at first it may."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")] = False,
) -> None:
    """Connect a Label Studio project: all that a lead would click, tasks, the first queue. The API must be up."""
    timing = connecting.Timing.checked(schedule, time_zone)
    wanted = (_context(), project_id, _prompts(prompt), group_field, prompt_field, timing, overlapping)
    if dry_run:
        _say_changes("would ", connecting.would_change(*wanted))
        return
    done = connecting.connect(*wanted)
    _say_changes("", done.changes)
    for label, text in done.prompts.items():
        typer.echo(f"{label}: “{text}”")
    opened = f"opened round {done.round_id}" if done.round_id else "no round is due"
    typer.echo(
        f"project {project_id} is connected: {done.tasks} tasks in {done.groups} groups, "
        f"{done.held_out} held out for evaluation; {opened}"
    )
    if done.tasks and done.groups == done.tasks:
        typer.echo(
            f"no two tasks share a group: if several images show one patient, name the field that tells with "
            f"--group-field (now {done.group_field!r}), or the evaluation will flatter"
        )


@cli.command()
def disconnect(project_id: ProjectId) -> None:
    """Take our model server, webhook, tabs and settings out of a project. What was learnt from it stays."""
    cancelled = disconnecting.disconnect(_context(), project_id)
    ended = f"; round {cancelled} was cancelled" if cancelled else ""
    typer.echo(f"project {project_id} is disconnected{ended}; `wardround connect {project_id}` takes it up again")


@cli.command("doctor")
def see_doctor(
    project_id: Annotated[int | None, typer.Argument(help="Id of a project; all connected ones without it.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Put right what can be put right from here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find everything that breaks the loop without a word, and say what cures it. Exit status 1: findings are left."""
    found = (doctor.fix if fix else doctor.examine)(_context(), project_id)
    typer.echo(json.dumps(found.as_record(), indent=2) if as_json else doctor.in_words(found))
    if found.findings:
        sys.exit(1)


def _say_changes(before: str, changes: list[str]) -> None:
    for change in changes or ["change nothing: all is as it should be"]:
        typer.echo(f"{before}{change}")


@cli.command()
def queue(project_id: ProjectId, as_json: AsJson = False) -> None:
    """Show the published queue: what Label Studio serves next, and why."""
    ctx = _context()
    columns = ("rank", "task_id", "arm", "score", "dice_bound", "verdict")
    _show(report.queue_of(ctx, project_id), as_json, columns)
    if not as_json:
        typer.echo(report.triage_in_words(ctx, project_id))


@cli.command()
def effort(
    project_id: ProjectId,
    by: Annotated[ledger.By, typer.Option(help="What a line is about: round, label, annotator or verdict.")] = "round",
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
) -> None:
    """Show what annotations cost and what their pre-annotations were worth. Times are medians, in seconds."""
    rows = ledger.rows_by(ledger.summary(_context(), project_id), by)
    if as_csv:
        typer.echo(ledger.as_csv(rows, by), nl=False)
    else:
        _show(rows, as_json, ledger.columns(by))


@cli.command("forecast")
def see_forecast(
    project_id: ProjectId,
    target: Annotated[float, typer.Option(help="Held-out Dice to reach.")] = forecast.TARGET,
    svg: Annotated[Path | None, typer.Option(help="Write curve, interval and target to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many labels and minutes a target Dice still takes, with an interval, and whether to stop."""
    ctx = _context()
    found = forecast.of_project(ctx, project_id, target)
    if svg is not None:
        _write(svg, forecast.picture(ctx, project_id, target))
    if as_json:
        typer.echo(json.dumps(found))
        return
    _say(found["words"])
    _show(found["rounds"], False, ("round", "n_labels", "n_held_out", "dice", "noise", "curve"))
    _show(found["ahead"], False, ("n_labels", "low", "median", "high"))


@cli.command("paying")
def see_paying(project_id: ProjectId, as_json: AsJson = False) -> None:
    """Compare what the strategy asked for with what chance did: is active learning paying?"""
    found = paying.of_project(_context(), project_id)
    if as_json:
        typer.echo(json.dumps(found))
        return
    _say(found["words"])
    columns = ("measure", "n_strategy", "n_random", "strategy", "random", "difference", "low", "high")
    _show(found["measures"], False, columns)


@cli.command("label-errors")
def see_label_errors(
    project_id: ProjectId,
    folds: Annotated[int, typer.Option(min=2, help="Models trained, each on all other folds.")] = 3,
    max_steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each.")] = label_errors.MAX_STEPS,
    most: Annotated[int, typer.Option(min=1, help="How many to show and to publish.")] = 20,
    stored: Annotated[bool, typer.Option("--stored", help="Show what the last search found, train nothing.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Put them into the tab 'Likely errors'.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find annotations that models which never saw them contradict, the likeliest errors first."""
    ctx = _context()
    if not stored:
        for what, why in _search(ctx, project_id, folds, max_steps).items():
            typer.echo(f"{what if ' ' in what else f'task {what}'} is left out: {why}", err=True)
    found = label_errors.listed(ctx, project_id, unchanged=True)[:most]
    _show(found, as_json, ("rank", "task_id", "annotation_id", "label", "score", "dice", "usual_dice", "url"))
    if publish:
        n = label_errors.publish(ctx, project_id, most)
        typer.echo(f"the tab 'Likely errors' of project {project_id} holds {n} annotations", err=as_json)


def _search(ctx: Context, project_id: int, folds: int, max_steps: int) -> dict[str, str]:
    if ctx.settings.threads:
        import torch

        torch.set_num_threads(ctx.settings.threads)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("training", total=folds * max_steps)

        def on_progress(fold: int, step: int, steps: int) -> None:
            bar.update(line, description=f"fold {fold + 1} of {folds}", completed=fold * steps + step)

        return label_errors.search(ctx, project_id, n_folds=folds, max_steps=max_steps, on_progress=on_progress)


class _WithItsOptions(TyperCommand):
    """A command that hands on what it does not know, and so explains that as well."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Its own help, then that of what it hands on to."""
        super().format_help(ctx, formatter)
        # Of a process of its own: neither room knows the other.
        said = subprocess.run(_simulation("--help"), capture_output=True, text=True, check=True).stdout
        formatter.write("Of the simulation:\n" + said.partition("options:\n")[2])


@cli.command(
    "simulate", cls=_WithItsOptions, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def simulate(
    call: typer.Context,
    data: Annotated[
        str, typer.Argument(help="Id or title of a connected project, a JSON export of one, or a labelled folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("simulation-results"),
    folder: Annotated[
        Path | None, typer.Option(help="Where the labelled folder is written; 'labelled' in --out without it.")
    ] = None,
    only_folder: Annotated[bool, typer.Option("--only-folder", help="Write the labelled folder and stop.")] = False,
    images: Annotated[Path | None, typer.Option(help="Export: folder with its images; else they are fetched.")] = None,
    label_config: Annotated[
        Path | None, typer.Option(help="Export: its project's label config, XML; else what was painted tells.")
    ] = None,
    group_field: Annotated[
        str | None, typer.Option(help="Export: key of task data naming the patient, video or volume; else 'group'.")
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Export: key of task data with a prompt of its own; else 'prompt'.")
    ] = None,
) -> None:
    """Compare query strategies on masks that are there already. All other options go to the simulation, listed below.

    A project is only read: what a round would train on is copied into a labelled folder, which later calls go on with.
    """
    try:
        if data.startswith("-"):
            raise BadQuestion(f"name the data first and options after it, not {data} before them")
        source = labelled_folder.Source(images, label_config, group_field, prompt_field)
        found = _labelled(data, folder or out / "labelled", source)
    except WardroundError as error:
        typer.echo(f"wardround: {error}", err=True)
        raise typer.Exit(2) from None
    if only_folder:
        typer.echo(str(found))
        return
    _become_simulation(found, "--out", str(out), *call.args)


def _labelled(data: str, folder: Path, source: labelled_folder.Source) -> Path:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("reading", total=None)

        def on_progress(what: str, done: int, total: int) -> None:
            bar.update(line, description=what, completed=done, total=total)

        found = labelled_folder.of_data(data, folder, source, _logged_settings, _context, on_progress)
    if isinstance(found, Path):
        return found
    for what, why in found.left_out.items():
        typer.echo(f"{what if ' ' in what else f'task {what}'} is left out: {why}", err=True)
    typer.echo(
        f"{found.folder}: {found.rows} masks of {found.images} images in {found.groups} groups, as of "
        f"{found.written_at}; remove it to take what was annotated since",
        err=True,
    )
    return found.folder


def _simulation(*options: str) -> list[str]:
    return [sys.executable, "-m", "simulation", *options]


def _become_simulation(*options: str | Path) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, _simulation(*map(str, options)))  # noqa: S606 - Ctrl-C reaches it, and no parent waits


@rounds_cli.command("list")
def list_rounds(project_id: ProjectId, as_json: AsJson = False) -> None:
    """One line a round: where it stands, its verdict and its held-out Dice."""
    columns = ("id", "number", "status", "verdict", "n_labels", "n_held_out", "dice", "incumbent_dice", "error")
    _show(report.rounds_of(_context(), project_id), as_json, columns)


@rounds_cli.command("start")
def start_round(project_id: ProjectId) -> None:
    """Open a round now, whether one is due or not."""
    typer.echo(f"opened round {rounds.open_now(_context(), project_id)}")


@rounds_cli.command("show")
def show_round(round_id: RoundId, as_json: AsJson = False) -> None:
    """Print a round: where it stands, what was decided and why, and where its version comes from."""
    found = report.round_in_full(_context(), round_id)
    typer.echo(json.dumps(found, indent=2) if as_json else report.in_words(found))


@rounds_cli.command("cancel")
def cancel_round(round_id: RoundId) -> None:
    """End a round that is running or waiting. What it trained is kept, but serves nobody."""
    rounds.cancel(_context(), round_id)
    typer.echo(f"cancelled round {round_id}")


@rounds_cli.command("reproduce")
def reproduce_round(round_id: RoundId) -> None:
    """Train a round's version again from its lineage and compare the weights. Changes nothing."""
    console = Console(stderr=True)
    with console.status("training again") as status:
        done = rounds.reproduce(
            _context(), round_id, lambda p: status.update(f"training again: step {p.step} of {p.max_steps}")
        )
    typer.echo(f"training set of version {done.version}: {'the same' if done.same_training_set else 'DIFFERENT'}")
    typer.echo(f"weights: {'the same' if done.same_weights else 'DIFFERENT'}")
    if done.code_differs:
        typer.echo(f"what computed is not what it was then: {', '.join(done.code_differs)}")
    if not (done.same_training_set and done.same_weights):
        sys.exit(1)


@cli.command()
def versions(project_id: ProjectId, as_json: AsJson = False) -> None:
    """List a project's model versions: which one serves, where each comes from, whether it can be brought back."""
    columns = ("number", "serving", "round", "verdict", "parent", "dice", "n_examples", "restorable")
    _show(report.versions_of(_context(), project_id), as_json, columns)


@cli.command()
def rollback(
    project_id: ProjectId,
    version: Annotated[int, typer.Argument(help="Number of the version, as `versions` lists it.")],
) -> None:
    """Have an earlier model version serve again and publish its predictions. Cancels a round that is running."""
    opened = rounds.roll_back(_context(), project_id, version)
    typer.echo(f"round {opened} brings back version {version}; `wardround rounds show {opened}` says how far it is")


@cli.command()
def prune() -> None:
    """Remove what is not to be kept: images, old checkpoints, their predictions. Runs hourly by itself."""
    typer.echo(str(retention.prune(_context())))


@cli.command()
def status(as_json: AsJson = False) -> None:
    """Show workers, projects with their last pull, unfinished rounds, free disk. Exit status 1: no worker."""
    found = report.status(_context())
    typer.echo(json.dumps(found, indent=2) if as_json else report.status_in_words(found))
    if not any(worker["alive"] for worker in found["workers"]):
        sys.exit(1)


def _context() -> Context:
    return context.build(_logged_settings())


def _logged_settings() -> settings.Settings:
    loaded = settings.load()
    logs.set_up(loaded)
    return loaded


def _ready() -> settings.Settings:
    """Fail here, in words, rather than inside Celery."""
    loaded = settings.load()
    loaded.require("label_studio_url", "label_studio_token")
    Store(loaded.database_url).migrate()
    return loaded


def _become_celery(*arguments: str) -> NoReturn:
    command = [sys.executable, "-m", "celery", "--app=backend.worker:app", "--quiet", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - signals reach Celery itself, with no shell or parent between


def _tick(loaded: settings.Settings) -> int:
    """Seconds beat sleeps at most; Celery takes whole ones."""
    return max(1, int(min(loaded.tick_seconds, loaded.reconcile_seconds, 5.0)))


def _prompts(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    if any(not label or not text for label, _, text in pairs):
        raise BadSettings('give prompts as LABEL=TEXT, for example --prompt "Lesion=a dark lesion in an ultrasound"')
    return {label: text for label, _, text in pairs}


def _say(words: list[str]) -> None:
    for sentence in words:
        typer.echo(f"{sentence[0].upper()}{sentence[1:]}.")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadSettings(f"{path} cannot be written ({error.strerror}); name another file") from error


def _show(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
