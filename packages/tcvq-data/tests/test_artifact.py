import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tcvq_data import ArtifactError, read_artifact, sha256_file, write_artifact

SCHEMA = "tcvq.test/2"


def tensors():
    return {
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "a": torch.tensor(7, dtype=torch.int64),
        "bf": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "flag": torch.tensor([True, False]),
    }


@pytest.fixture
def path(tmp_path):
    write_artifact(tmp_path / "x.safetensors", tensors(), schema=SCHEMA, meta={"n": 3, "names": ["é", None, 0.1]})
    return tmp_path / "x.safetensors"


def one_line(caught, path):
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


def test_an_artifact_comes_back_as_it_was(path):
    artifact = read_artifact(path, schema=SCHEMA)
    assert artifact.schema == SCHEMA
    assert artifact.meta == {"n": 3, "names": ["é", None, 0.1]}
    assert artifact.sha256 == sha256_file(path)
    assert artifact.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert artifact.tensors[name].dtype == tensor.dtype
        assert torch.equal(artifact.tensors[name], tensor)


def test_write_returns_the_hash_of_the_file(tmp_path):
    assert write_artifact(tmp_path / "a", tensors(), schema=SCHEMA) == sha256_file(tmp_path / "a")


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path):
    write_artifact(tmp_path / "a", tensors(), schema=SCHEMA, meta={"p": 1, "q": {"r": 2, "s": 3}})
    reverse = dict(reversed(tensors().items()))
    write_artifact(tmp_path / "b", reverse, schema=SCHEMA, meta={"q": {"s": 3, "r": 2}, "p": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parameters_and_tied_tensors_are_stored(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    write_artifact(tmp_path / "a", {"x": weight, "y": weight, "row": weight[0]}, schema=SCHEMA)
    loaded = read_artifact(tmp_path / "a", schema=SCHEMA).tensors
    assert loaded["y"].tolist() == [[1, 1], [1, 1]]
    assert loaded["row"].tolist() == [1, 1]


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "small"
    write_artifact(path, {"a": torch.tensor([1, 2], dtype=torch.uint8)}, schema=SCHEMA, meta={"k": "v"})
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError) as caught:
                read_artifact(path, schema=SCHEMA)
            one_line(caught, path)


def test_damage_in_the_numbers_is_called_damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        read_artifact(path, schema=SCHEMA)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="not a safetensors file, or damaged") as caught:
        read_artifact(path, schema=SCHEMA)
    one_line(caught, path)


def test_a_longer_file_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="damaged"):
        read_artifact(path, schema=SCHEMA)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file") as caught:
        read_artifact(tmp_path / "x", schema=SCHEMA)
    one_line(caught, tmp_path / "x")
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        read_artifact(tmp_path, schema=SCHEMA)


class Bomb:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    for name, write in (("a", lambda p, o: p.write_bytes(pickle.dumps(o))), ("b", lambda p, o: torch.save(o, p))):
        write(tmp_path / name, Bomb(tmp_path / "ran"))
        with pytest.raises(ArtifactError, match="not a safetensors file"):
            read_artifact(tmp_path / name, schema=SCHEMA)
    assert not (tmp_path / "ran").exists()


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "a", metadata={"format": "pt"})
    save_file({"w": torch.ones(1)}, tmp_path / "b")
    for name in "ab":
        with pytest.raises(ArtifactError, match="not one of this project"):
            read_artifact(tmp_path / name, schema=SCHEMA)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{", "header is not JSON"),
        ("[" * 100_000, "header is not JSON"),
        ("[]", "header lacks"),
        ('{"schema": "tcvq.test/2", "meta": {}}', "header lacks"),
        ('{"schema": "tcvq.test", "meta": {}, "content_sha256": ""}', "header lacks"),
        ('{"schema": "tcvq.test/2", "meta": {}, "content_sha256": ""}', "checksum"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, header, match):
    save_file({"w": torch.ones(1)}, tmp_path / "a", metadata={"tcvq": header})
    with pytest.raises(ArtifactError, match=match) as caught:
        read_artifact(tmp_path / "a", schema=SCHEMA)
    one_line(caught, tmp_path / "a")


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ("tcvq.codes/1", r"holds tcvq\.test/2, but tcvq\.codes/1 is needed"),
        ("tcvq.test/1", r"holds tcvq\.test/2, but this software reads tcvq\.test/1; upgrade"),
        ("tcvq.test/10", r"holds tcvq\.test/2, but this software reads tcvq\.test/10; make the file again"),
    ],
)
def test_another_schema_is_refused_by_name(path, wanted, match):
    with pytest.raises(ArtifactError, match=match) as caught:
        read_artifact(path, schema=wanted)
    one_line(caught, path)


@pytest.mark.parametrize(
    ("schema", "meta", "error"),
    [
        ("tcvq.test", {}, ValueError),
        ("tcvq.test/0", {}, ValueError),
        (SCHEMA, {"loss": float("inf")}, ValueError),
        (SCHEMA, {"path": Path()}, TypeError),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, schema, meta, error):
    with pytest.raises(error):
        write_artifact(tmp_path / "a", {}, schema=schema, meta=meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_artifact(path, monkeypatch, error):
    before = path.read_bytes()
    write_bytes = Path.write_bytes

    def half(self, data):
        write_bytes(self, data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error)):
        write_artifact(path, {"a": torch.zeros(3)}, schema=SCHEMA)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before
