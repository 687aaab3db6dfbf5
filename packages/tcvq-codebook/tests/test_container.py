"""The file format: what was written comes back, the safetensors library agrees, damage is one clear line."""

import json

import pytest
import torch

from tcvq_codebook.container import CodebookFileError, read_container, write_container

TENSORS = {
    "b": torch.arange(3),
    "a": torch.randn(2, 2),
    "flag": torch.tensor(True),
    "none": torch.zeros(0, 3),
    "half": torch.randn(5).bfloat16(),
    "double": torch.randn(1, dtype=torch.float64),
    "ints": torch.arange(4, dtype=torch.int32).view(2, 2).T,
}
META = {"n_steps": 4, "names": ["ä", "b"], "nested": {"beta": 0.25}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "book.safetensors"
    write_container(path, TENSORS, schema="example.book/1", meta=META)
    return path


def test_what_was_written_comes_back(path):
    found = read_container(path)
    assert (found.schema, found.meta) == ("example.book/1", META)
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_the_safetensors_library_reads_and_writes_the_same_bytes(path):
    safetensors = pytest.importorskip("safetensors.torch", reason="compares with the safetensors library if installed")
    data = path.read_bytes()
    loaded = safetensors.load(data)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert safetensors.save({k: v.contiguous() for k, v in TENSORS.items()}, header["__metadata__"]) == data
    path.write_bytes(safetensors.save({"weight": torch.ones(2)}))
    assert read_container(path).schema is None
    assert read_container(path).tensors["weight"].tolist() == [1, 1]


def test_the_same_content_gives_the_same_bytes_whatever_the_order(path):
    other = path.with_name("other")
    write_container(other, dict(reversed(TENSORS.items())), schema="example.book/1", meta=dict(reversed(META.items())))
    assert other.read_bytes() == path.read_bytes()


def test_every_flipped_bit_and_every_missing_or_added_byte_is_noticed(path):
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    damaged = [data[:n] for n in (0, 4, 8, 100, start - 1, start, len(data) - 1)] + [data + b"\0"]
    damaged += [
        data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :]
        for n in [*range(8), *range(8, start, 7), *range(start, len(data))]
    ]
    for content in damaged:
        path.write_bytes(content)
        if b'"tcvq":' not in content[:start] and len(content) == len(data):  # then it is the file of someone else
            continue
        with pytest.raises(CodebookFileError, match="not a safetensors file, or damaged") as caught:
            read_container(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}',
        b'{"__metadata__": {"tcvq": "{}"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"__metadata__": [], "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'.replace(b"[]", b"3"),
        b"[" * 100000,
    ],
)
def test_headers_that_break_the_format_are_refused(header, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CodebookFileError, match="not a safetensors file, or damaged"):
        read_container(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_container(path, TENSORS, schema="example.book/2", meta={})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_the_file_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "book"
    with pytest.raises(ValueError, match=r"cannot write c \(torch.complex64\)"):
        write_container(path, {"c": torch.zeros(1, dtype=torch.complex64)}, schema="a/1", meta={})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_container(path, {}, schema="a/1", meta={"x": float("nan")})
    with pytest.raises(FileNotFoundError):
        write_container(tmp_path / "no" / "book", {}, schema="a/1", meta={})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(CodebookFileError, match="no such file; check the path"):
        read_container(tmp_path / "gone")
    with pytest.raises(CodebookFileError, match="cannot be read: Is a directory"):
        read_container(tmp_path)
