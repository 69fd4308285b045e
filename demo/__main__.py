"""`python -m demo`: the whole loop on this machine, started, driven, shown and stopped again."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType

from demo import data, project
from demo.annotator import Annotator
from demo.errors import BadData, DemoError
from demo.label_studio import LabelStudioServer
from demo.loop import Loop
from demo.processes import Children, free_port, tail
from demo.product import Wardround
from demo.report import Reporter
from demo.state import fresh_run

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when the loop closed, 1 when it did not, 130 or 143 when interrupted before it could."""
    options = parse(arguments)
    report = Reporter()
    signal.signal(signal.SIGTERM, _end)
    try:
        with fresh_run(options.state) as folder:
            return _run(options, folder, report)
    except DemoError as error:
        report.failed(str(error), {})
        return 1
    except KeyboardInterrupt:
        report.step("interrupted; everything is stopped")
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole loop on this machine.")
    parser.add_argument("--data", type=Path, help="a folder with pairs.csv (id, image, mask, group, prompt)")
    parser.add_argument("--once", action="store_true", help="end after the rounds instead of staying up")
    parser.add_argument("--rounds", type=int, default=2, help="rounds to train (default 2)")
    parser.add_argument("--images", type=int, default=120, help="images to work on (default 120)")
    parser.add_argument("--annotations-per-round", type=int, default=24, help="default 24")
    parser.add_argument("--state", type=Path, default=ROOT / ".demo", help="where it writes (default .demo)")
    parser.add_argument("--label-studio-port", type=int, help="default: a free one")
    parser.add_argument("--api-port", type=int, help="default: a free one")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.annotations_per_round) < 1:
        parser.error("--rounds and --annotations-per-round must be at least 1")
    if options.images <= options.rounds * options.annotations_per_round:
        parser.error("--images must exceed rounds x annotations per round: the last round still ranks a pool")
    return options


def _run(options: argparse.Namespace, folder: Path, report: Reporter) -> int:
    """Start everything, close the loop, stay if asked, stop everything."""
    dataset = _dataset(options, folder, report)
    children = Children()
    report.step("starting Label Studio")
    try:
        with LabelStudioServer(folder / "label-studio", options.label_studio_port, on_progress=report.now) as server:
            product = _product(options, folder, server)
            number = _close_the_loop(options, dataset, server, product, children, report)
            if not options.once:
                report.where_to_look(server, product, number)
                _stay(server, children)
    except DemoError as error:
        report.failed(str(error), _ends_of_logs(folder))
        return 1
    finally:
        report.quiet()
        children.stop()
    report.step("the loop closed; everything is stopped")
    return 0


def _dataset(options: argparse.Namespace, folder: Path, report: Reporter) -> data.Dataset:
    report.step(f"reading images from {options.data}" if options.data else "drawing synthetic phantoms")
    found = data.load(options.data, options.images, folder / "phantoms")
    enough = options.rounds * options.annotations_per_round
    if len(found.pairs) <= enough:
        raise BadData(
            f"{len(found.pairs)} images are too few for {options.rounds} rounds; more than {enough} are needed"
        )
    groups = len({pair.group for pair in found.pairs})
    kind = "synthetic phantoms: their Dice says the loop works, no more" if found.synthetic else "real images"
    report.step(f"{len(found.pairs)} images of {groups} groups ({kind}); prompt: {found.prompt!r}")
    return found


def _product(options: argparse.Namespace, folder: Path, server: LabelStudioServer) -> Wardround:
    return Wardround(
        folder=folder / "wardround",
        label_studio_url=server.url,
        label_studio_token=server.pat(),
        api_port=options.api_port or free_port(),
        annotations_per_round=options.annotations_per_round,
    )


def _close_the_loop(
    options: argparse.Namespace,
    dataset: data.Dataset,
    server: LabelStudioServer,
    product: Wardround,
    children: Children,
    report: Reporter,
) -> int:
    """The id of the project that went round."""
    report.step("starting Wardround: API, worker, beat")
    product.start(children)
    with closing(server.client()) as http:
        report.step("making the project")
        made = project.create(
            http, "Wardround demo", dataset.pairs, lambda n: report.now(f"{n} of {len(dataset.pairs)} images uploaded")
        )
        report.step(f"connecting Wardround to project {made.id}")
        product.connect(made.id, dataset.prompt)
        Loop(product, Annotator(http, made), made.id, children, report).close(options.rounds)
    return made.id


def _stay(server: LabelStudioServer, children: Children) -> None:
    """Until Ctrl-C, which is how the demo is meant to end; raises ChildDied when a part of it ends before."""
    with suppress(KeyboardInterrupt):
        while True:
            server.require_running()
            children.require_running()
            time.sleep(1.0)


def _ends_of_logs(folder: Path) -> dict[str, str]:
    logs = sorted(folder.glob("**/*.log"))
    return {str(log): tail(log, 15) for log in logs}


def _end(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that everything started is stopped on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
