"""headrace-trainer convert"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.protocol import adapter
from trainer.commands.shared import Commands, console
from trainer.errors import TrainerError


def add(commands: Commands) -> None:
    """Add the command."""
    convert = commands.add_parser("convert", help="an adapter merged into its base, or as GGUF")
    convert.add_argument("id", help="of the bundle: geo-v8")
    convert.add_argument(
        "--adapters", type=Path, default=Path("adapters"), help="where bundles live (%(default)s)"
    )
    convert.add_argument("--out", type=Path, required=True, help="directory for the merged model")
    convert.add_argument(
        "--converter", type=Path, help="llama.cpp's checkout: write both GGUF files, too"
    )
    convert.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    try:
        from trainer import export
    except ImportError as error:
        raise TrainerError(
            f"exporting needs torch and peft ({error}); run `make train-setup`"
        ) from error
    bundle = adapter.read(options.adapters / options.id)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = [("merged", export.merged(bundle, options.out))]
    if options.converter is not None:
        whole, alone = (options.out / f"{bundle.id}{kind}.gguf" for kind in ("", "-lora"))
        export.gguf_merged(options.out, whole, options.converter)
        export.gguf_adapter(bundle, options.out, alone, options.converter)
        shown.append((whole.name, export.proven_gguf(bundle, whole)))
        console.print(f"{alone.name}: written, not asked; only llama.cpp reads it")
    for name, proof in shown:
        console.print(f"{name}: {proof.agree} of {proof.tokens} tokens of the canary as trained")
