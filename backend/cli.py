"""ENTRY POINT: the `wardround` command."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from backend import connect as connecting
from backend import context, processes, report, rounds, settings
from backend.context import Context
from backend.errors import BadSettings, Interrupted, WardroundError
from backend.store import Store

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Active learning for medical image segmentation in Label Studio. Settings come from WARDROUND_* variables.",
)
rounds_cli = typer.Typer(no_args_is_help=True, help="List, start and show rounds.")
cli.add_typer(rounds_cli, name="rounds")

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

    from backend.app import create_app

    processes.let_waiting_threads_sleep()
    loaded = settings.load()
    loaded.require("api_token", "webhook_secret")
    context.set_up_logging(loaded)
    ctx = context.build(loaded)
    uvicorn.run(create_app(ctx), host=loaded.api_host, port=loaded.api_port, log_config=None, access_log=False)


@cli.command()
def worker() -> None:
    """Run Celery tasks: rounds and reconciliation."""
    _ready()
    # Threads: one may wait for a round's process while the other reconciles. Nothing here touches torch.
    _become_celery("worker", "--pool=threads", "--concurrency=2", "--without-gossip", "--without-mingle")


@cli.command()
def beat() -> None:
    """Tick: ask a worker to reconcile every WARDROUND_RECONCILE_SECONDS. Two of them do no harm."""
    loaded = _ready()
    _become_celery("beat", "--scheduler=celery.beat:Scheduler", "--pidfile=", f"--max-interval={_tick(loaded)}")


@cli.command("run-round", hidden=True)
def run_round(round_id: int, parent: Annotated[int, typer.Option(help="Process id of the worker.")] = 0) -> None:
    """Run one round in this process; the worker starts it, and its end is ours."""
    if parent:
        processes.die_with_parent(parent)
    processes.be_polite()
    processes.let_waiting_threads_sleep()
    stop = processes.stop_on_sigterm()
    ctx = _context()
    if ctx.settings.threads:
        import torch

        torch.set_num_threads(ctx.settings.threads)
    try:
        rounds.run(ctx, round_id, stop)
    except Interrupted:
        sys.exit(EX_TEMPFAIL)


@cli.command()
def connect(
    project_id: ProjectId,
    prompt: Annotated[list[str], typer.Option(help="LABEL=TEXT: what the model is told to look for.")] = [],  # noqa: B006
    group_field: Annotated[str, typer.Option(help="Key of task data naming the patient, video or volume.")] = "group",
    prompt_field: Annotated[str, typer.Option(help="Key of task data with a prompt of its own.")] = "prompt",
) -> None:
    """Connect a Label Studio project: backend, webhook, sampling, tasks and the first queue. The API must be up."""
    done = connecting.connect(_context(), project_id, _prompts(prompt), group_field, prompt_field)
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
            f"--group-field (now {group_field!r}), or the evaluation will flatter"
        )


@cli.command()
def queue(project_id: ProjectId, as_json: AsJson = False) -> None:
    """Show the published queue: what Label Studio serves next, and why."""
    _show(report.queue_of(_context(), project_id), as_json, ("rank", "task_id", "arm", "score"))


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
def show_round(round_id: Annotated[int, typer.Argument(help="Id of the round.")]) -> None:
    """Print a round in full: evaluation, what was left out, and every mask it trained on."""
    typer.echo(json.dumps(report.round_in_full(_context(), round_id), indent=2))


def _context() -> Context:
    loaded = settings.load()
    context.set_up_logging(loaded)
    return context.build(loaded)


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
    return max(1, int(min(loaded.reconcile_seconds, 5.0)))


def _prompts(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    if any(not label or not text for label, _, text in pairs):
        raise BadSettings('give prompts as LABEL=TEXT, for example --prompt "Lesion=a dark lesion in an ultrasound"')
    return {label: text for label, _, text in pairs}


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
