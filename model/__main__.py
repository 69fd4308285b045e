"""Look into a checkpoint, or bring one of the released MedCLIPSeg code into our own format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model import ModelError, Source


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 with the reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser("show", help="print a checkpoint's configuration and card as JSON, after verifying it")
    show.add_argument("checkpoint", type=Path)
    show.set_defaults(run=_show)
    bring = commands.add_parser("import", help="turn a released .pth into a checkpoint of ours")
    bring.add_argument("released", type=Path, help="MedCLIPSeg_<backbone>_<ViT>_{latest,best_dice}.pth")
    bring.add_argument("checkpoint", type=Path, help="the .safetensors file to write")
    bring.add_argument("--backbone", default="unimedclip", help="what it was trained over (default: %(default)s)")
    bring.add_argument("--tokenizer", help="folder or hub id of the BERT's vocabulary (default: where it is published)")
    bring.set_defaults(run=_import)
    return parser


def _show(options: argparse.Namespace) -> int:
    from model.checkpoints import describe

    print(json.dumps(describe(options.checkpoint), indent=2))
    return 0


def _import(options: argparse.Namespace) -> int:
    from model.checkpoints import file_sha256
    from model.released import load_released

    segmenter = load_released(options.released, options.backbone, source=Source(tokenizer=options.tokenizer))
    parent = {"file": options.released.name, "sha256": file_sha256(options.released)}
    segmenter.save(options.checkpoint, {"parents": [parent], "recipe": "released"})
    print(f"{options.checkpoint} holds what was trained; its towers are those of {options.backbone}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
