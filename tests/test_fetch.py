"""Copying out of a bucket: a real S3 server (moto's) over HTTP, and a directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from proxy.__main__ import main
from proxy.fetch import MARKER, FetchFailed, fetch

FILES = {"config.json": b"{}", "deep/weights.safetensors": b"w" * 3_000_000}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    put(f"http://{host}:{port}/models", b"")
    for name, content in FILES.items():
        put(f"http://{host}:{port}/models/llama/{name}", content)
    put(f"http://{host}:{port}/models/other/secret", b"not asked for")
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return "s3://models/llama"


def put(url: str, content: bytes) -> None:
    kind = {"content-type": "application/octet-stream"}
    with urlopen(Request(url, data=content, headers=kind, method="PUT")) as answer:
        assert answer.status == 200


def read(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}


def test_everything_below_the_path_is_copied_and_nothing_else(bucket: str, tmp_path: Path):
    told = list(fetch(bucket, tmp_path / "llama"))

    assert read(tmp_path / "llama") == FILES
    assert told[-1] == "2/2 deep/weights.safetensors 2.9 MiB"


def test_whole_copy_is_left_alone_and_a_torn_one_made_good(bucket: str, tmp_path: Path):
    list(fetch(bucket, tmp_path))
    (tmp_path / "config.json").write_bytes(b"changed")

    assert list(fetch(bucket, tmp_path)) == [f"{tmp_path} is a whole copy of {bucket}"]
    assert read(tmp_path)["config.json"] == b"changed"

    (tmp_path / MARKER).unlink()
    list(fetch(bucket, tmp_path))
    assert read(tmp_path) == FILES


def test_command_says_what_is_missing(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["fetch", "s3://models/lama", str(tmp_path / "x")]) == 1
    assert "s3://models/lama: nothing is there" in capsys.readouterr().err
    assert not (tmp_path / "x" / MARKER).exists()


def test_unknown_kind_of_url_is_refused(tmp_path: Path):
    with pytest.raises(FetchFailed, match="ftp://host/x"):
        list(fetch("ftp://host/x", tmp_path))


def test_directory_is_copied_too(tmp_path: Path):
    source = tmp_path / "there"
    (source / "a").mkdir(parents=True)
    (source / "a" / "b").write_bytes(b"1")

    list(fetch(source.as_uri(), tmp_path / "here"))

    assert read(tmp_path / "here") == {"a/b": b"1"}
