import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from tcvq_data import atomic_path, sha256_file, write_json, write_text


def test_a_finished_block_leaves_the_file_and_nothing_else(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_interrupted_block_leaves_the_folder_as_it_was(tmp_path, error, before):
    target = tmp_path / "a.txt"
    if before is not None:
        target.write_text(before)
    with pytest.raises(error), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({} if before is None else {"a.txt": before})


def test_a_full_disk_names_the_target_and_leaves_no_debris(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt") as caught:
        write_text(tmp_path / "a.txt", "text")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a device that is always full")
def test_a_write_to_a_really_full_device_names_the_target(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt"), atomic_path(tmp_path / "a.txt") as path:  # noqa: PT012
        path.symlink_to("/dev/full")
        path.write_text("text")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.txt, its folder does not exist: .*nowhere'"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")


def test_a_folder_is_never_replaced_by_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileExistsError, match=r"is a folder or a device: .*/a'"):
        write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").is_dir()


def test_files_get_the_ordinary_mode(tmp_path):
    write_text(tmp_path / "a", "text")
    (tmp_path / "b").write_text("text")
    mode_a, mode_b = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab")
    assert mode_a == mode_b


def test_json_keeps_order_and_letters_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"z": [1, None], "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8").index("z") < 6
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"z": [1, None], "a": "é"}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_sha256_file_is_the_hash_of_the_bytes(tmp_path):
    write_text(tmp_path / "a", "abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
