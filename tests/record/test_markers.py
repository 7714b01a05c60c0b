"""The lists of joins say which files count."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.protocol.exchange import NewerRecord
from proxy.record import markers
from proxy.record.archive import Archive, Gone
from proxy.record.markers import Join

OLD = {"a/1": "v1", "a/2": "v2"}
JOIN = Join(file="a/joined", replaced=OLD, at=1.0)
UNDONE = Join(file="a/joined", replaced=OLD, at=1.0, state="undone")


def test_old_files_count_until_the_new_one_is_there():
    assert markers.uncounted(["a/1", "a/2", "b/1"], [JOIN]) == set()
    assert markers.uncounted(["a/1", "a/2", "a/joined"], [JOIN]) == {"a/1", "a/2"}


def test_new_file_does_not_count_once_the_join_is_undone():
    assert markers.uncounted(["a/1", "a/2", "a/joined"], [UNDONE]) == {"a/joined"}


def test_lists_of_all_directories_are_read(tmp_path: Path, archive: Archive):
    markers.write(archive, "one", [JOIN], tmp_path)
    markers.write(archive, "other", [UNDONE], tmp_path)

    assert list(markers.read(archive)) == [JOIN, UNDONE]
    assert markers.of(archive, "other") == [UNDONE]
    assert markers.of(archive, "third") == []


def test_list_without_joins_is_none(tmp_path: Path, archive: Archive):
    markers.write(archive, "one", [JOIN], tmp_path)

    markers.write(archive, "one", [], tmp_path)

    assert archive.paths() == []


def test_list_that_is_deleted_while_it_is_looked_for_is_none(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    markers.write(archive, "one", [JOIN], tmp_path)
    (path,) = archive.paths()
    monkeypatch.setattr(archive, "paths", lambda prefix: [path])
    archive.delete(path)

    with pytest.raises(Gone):
        archive.get(path)
    assert list(markers.read(archive)) == []


@pytest.mark.parametrize("content", [b"no JSON", b'[{"file": "a"}]', b'{"joins": []}'])
def test_list_of_another_form_is_refused(tmp_path: Path, archive: Archive, content: bytes):
    file = tmp_path / "list"
    file.write_bytes(content)
    archive.put("joins/one.json", file)

    with pytest.raises(NewerRecord, match=r"joins/one\.json.* upgrade"):
        list(markers.read(archive))
