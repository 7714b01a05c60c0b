"""headrace-trainer registry ls, history, put, get, taint, keygen, sign, export"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import msgspec
from rich.table import Table

from proxy.protocol import adapter, signature
from proxy.protocol.adapter import AdapterError
from proxy.protocol.signature import SignatureError, Trusted
from trainer.commands.shared import Commands, console, existing
from trainer.errors import RegistryError
from trainer.registry import exports
from trainer.registry.registry import Registry
from trainer.registry.taint import tainted

TAINTED = 4
"""Exit code of `registry taint` where something is, as of `dataset taint`."""
_JSON = "print it as JSON"
EXPORTS = {"hugging-face": exports.hugging_face, "oci": exports.oci}


def add(commands: Commands) -> None:
    """Add the command with its own commands."""
    ours = commands.add_parser("registry", help="adapter bundles: keep, list, sign, trace, export")
    of = ours.add_subparsers(required=True, metavar="COMMAND")
    _add_reading(of)
    put = _add(of, "put", "keep a copy of a bundle, for good", _put)
    put.add_argument("bundle", type=Path, help="its directory")
    get = _add(of, "get", "copy a bundle out, all hashes proven", _get)
    get.add_argument("id", help="of the bundle: geo-v8")
    get.add_argument("--out", type=Path, required=True, help="directory to copy it into")
    get.add_argument("--signed-by", action="append", metavar="KEY", help="public key or file:PATH")
    taint = _add(of, "taint", "mark bundles that learnt from what was erased since", _taint)
    taint.add_argument(
        "--record",
        type=Path,
        action="append",
        required=True,
        metavar="DIRECTORY",
        help="of a record; again for more",
    )
    taint.add_argument(
        "--dataset",
        type=Path,
        action="append",
        default=[],
        metavar="DIRECTORY",
        help="of bundles that do not say what they learnt from; again for more",
    )
    taint.add_argument("--json", action="store_true", help=_JSON)
    _add_signing(of)
    exporting = of.add_parser("export", help="write a bundle as other tools have it")
    exporting.add_argument("bundle", type=Path, help="its directory")
    exporting.add_argument("--format", choices=EXPORTS, required=True, help="whose form")
    exporting.add_argument("--out", type=Path, required=True, help="folder to make")
    exporting.set_defaults(run=_export)


def _add(of: Commands, name: str, text: str, run: object) -> argparse.ArgumentParser:
    parser = of.add_parser(name, help=text)
    parser.add_argument(
        "--registry", default="adapters", help="a directory, or a bucket's URL (%(default)s)"
    )
    parser.set_defaults(run=run)
    return parser


def _add_reading(of: Commands) -> None:
    ls = _add(of, "ls", "the bundles, what they serve as, who signed them, which are tainted", _ls)
    ls.add_argument("--domain", help="only this domain's")
    ls.add_argument("--json", action="store_true", help=_JSON)
    history = _add(of, "history", "who changed which champion, when and why", _history)
    history.add_argument("--domain", help="only this domain's")
    history.add_argument("--json", action="store_true", help=_JSON)


def _add_signing(of: Commands) -> None:
    keygen = of.add_parser("keygen", help="make a pair of keys (Ed25519)")
    keygen.add_argument("key", type=Path, help="file for the private key; the public: KEY.pub")
    keygen.set_defaults(run=_keygen)
    sign = of.add_parser("sign", help="seal a bundle and sign it, before it is put or served")
    sign.add_argument("bundle", type=Path, help="its directory")
    sign.add_argument("--key", type=Path, required=True, help="the private key, in PEM")
    sign.set_defaults(run=_sign)


# ---------------------------------------------------------------- reading


def _there(where: str) -> Registry:
    """A registry to read from; a directory that is not there is none."""
    if "://" not in where:
        existing(Path(where))
    return Registry(where)


def _ls(options: argparse.Namespace) -> None:
    entries = _there(options.registry).ls(options.domain)
    if options.json:
        console.print_json(msgspec.json.encode(entries).decode())
        return
    table = Table("id", "serves as", "made", "run", "dataset", "signed by", "taint")
    for one in entries:
        taint = f"{one.taint.exchanges} exchanges erased" if one.taint else ""
        shown = (one.created_at[:16], one.run, one.dataset[:15], one.signed_by or "")
        table.add_row(one.id, "\n".join(one.roles), *shown, taint)
    console.print(table)


def _history(options: argparse.Namespace) -> None:
    changes = _there(options.registry).history(options.domain)
    if options.json:
        console.print_json(msgspec.json.encode(changes).decode())
        return
    table = Table("revision", "at", "who", "domain", "champion", "reason")
    for one in changes:
        before = one.before.champion if one.before else None
        after = one.after.champion if one.after else None
        told = f"{before or 'none'} → {after or 'none'}" if before != after else after or "none"
        table.add_row(str(one.revision), one.at, one.who, one.domain, told, one.reason)
    console.print(table)


def _taint(options: argparse.Namespace) -> int:
    records = [existing(record) for record in options.record]
    found = tainted(_there(options.registry), records, options.dataset)
    if options.json:
        console.print_json(msgspec.json.encode(found).decode())
    for one in () if options.json else found:
        serving = f", and serves {', '.join(one.serving)}" if one.serving else ""
        console.print(f"{one.id}: {one.taint.exchanges} of its exchanges were erased{serving}")
    return TAINTED if found else 0


# ---------------------------------------------------------------- copying


def _put(options: argparse.Namespace) -> None:
    registry = Registry(options.registry)
    console.print(f"{registry.put(options.bundle)} is in {registry}", soft_wrap=True)


def _get(options: argparse.Namespace) -> None:
    trusted = _trusted(options.signed_by) if options.signed_by else None
    path = Registry(options.registry).get(options.id, options.out, trusted)
    console.print(str(path), soft_wrap=True)


def _export(options: argparse.Namespace) -> None:
    console.print(str(EXPORTS[options.format](options.bundle, options.out)), soft_wrap=True)


# ---------------------------------------------------------------- signing


def _keygen(options: argparse.Namespace) -> None:
    pair = signature.generate()
    try:
        handle = os.open(options.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise RegistryError(f"{options.key}: {error.strerror}; name a file that is not") from error
    with open(handle, "wb") as file:
        file.write(pair.private)
    public = Path(f"{options.key}.pub")
    public.write_text(f"{pair.public}\n")
    console.print(f"{options.key}: private, for signing; {public}: public, for routes.yaml:")
    console.print(f"  signed_by: [{pair.public}]", highlight=False, soft_wrap=True)


def _sign(options: argparse.Namespace) -> None:
    try:
        private = options.key.read_bytes()
    except OSError as error:
        raise RegistryError(f"{options.key}: {error.strerror}") from error
    try:
        adapter.sign(options.bundle, private)
    except AdapterError as error:
        raise RegistryError(f"{options.bundle} with {options.key}: {error}") from error
    console.print(f"{options.bundle} is signed", soft_wrap=True)


def _trusted(keys: list[str]) -> Trusted:
    try:
        return Trusted(keys)
    except SignatureError as error:
        raise RegistryError(f"--signed-by: {error}") from error
