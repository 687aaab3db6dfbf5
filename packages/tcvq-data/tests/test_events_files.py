import re
import struct
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_data import ArtifactError
from tcvq_data.events import (
    EmptyRecordingError,
    EventStream,
    read_aedat2,
    read_aedat4,
    read_hdf5,
    read_nmnist,
    read_npz,
    write_nmnist,
    write_npz,
)

GOLDEN = Path(__file__).parent / "golden"
OVERFLOW = bytes([0, 240, 0, 0, 0])


def nmnist_record(x, y, p, t):
    return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])


def aedat2_file(records, header=(b"#!AER-DAT2.0\r\n", b"# This is a raw AE data file\r\n")):
    return b"".join(header) + b"".join(struct.pack(">II", address, t) for address, t in records)


def stream(rows, *, height=34, width=34):
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return EventStream.from_arrays(*columns, height=height, width=width)


def rows(events):
    return list(
        zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), events.p.astype(int).tolist(), strict=True)
    )


@pytest.fixture
def put(tmp_path):
    def write(data, name="recording.bin"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


# N-MNIST


def test_an_nmnist_file_is_read_bit_by_bit(put):
    path = put(bytes([3, 33, 0x80, 0x02, 0x8E, 33, 0, 0x04, 0xBE, 0xDE]))
    events = read_nmnist(path)
    assert rows(events) == [(3, 33, 654, 1), (33, 0, 0x04BEDE, 0)]
    assert (events.height, events.width) == (34, 34)
    assert (events.x.dtype, events.t.dtype, events.p.dtype) == (np.int16, np.int64, np.bool_)


def test_each_overflow_record_adds_8192_microseconds_to_all_that_follow(put):
    data = (
        nmnist_record(1, 2, 1, 100) + OVERFLOW + nmnist_record(3, 4, 0, 7) + OVERFLOW + nmnist_record(5, 6, 1, 0x7FFFFF)
    )
    assert rows(read_nmnist(put(data))) == [(1, 2, 100, 1), (3, 4, 8199, 0), (5, 6, 0x7FFFFF + 16384, 1)]


row = st.tuples(st.integers(0, 33), st.integers(0, 33), st.integers(0, 9_000_000), st.integers(0, 1))


@settings(max_examples=20)  # each writes two files through to the disk
@given(st.lists(row, max_size=30))
def test_nmnist_and_npz_files_give_back_the_same_events(tmp_path_factory, unsorted):
    events = stream(sorted(unsorted, key=lambda row: row[2]))
    folder = tmp_path_factory.mktemp("events")
    write_nmnist(folder / "a.bin", events)
    write_npz(folder / "a.npz", events)
    assert (folder / "a.bin").stat().st_size % 5 == 0
    if len(events) == 0:
        for read, name in ((read_nmnist, "a.bin"), (read_npz, "a.npz")):
            with pytest.raises(EmptyRecordingError, match=name):
                read(folder / name)
        return
    assert rows(read_nmnist(folder / "a.bin")) == rows(events)
    again = read_npz(folder / "a.npz")
    assert rows(again) == rows(events)
    assert (again.height, again.width) == (34, 34)


def test_an_nmnist_file_is_written_bit_by_bit(tmp_path):
    write_nmnist(tmp_path / "a.bin", stream([(3, 33, 654, 1), (5, 6, 0x7FFFFF + 8193, 0)]))
    wanted = nmnist_record(3, 33, 1, 654) + OVERFLOW * 2 + nmnist_record(5, 6, 0, 0x7FFFFF + 8193 - 16384)
    assert (tmp_path / "a.bin").read_bytes() == wanted


@pytest.mark.parametrize(
    ("rows", "size", "match"),
    [
        ([(1, 1, 10, 0), (1, 1, -1, 0)], (34, 34), "event 1 at -1 µs is negative"),
        ([(1, 1, 9_000_000, 0), (1, 1, 5, 0)], (34, 34), "event 1 at 5 µs .* sort by t"),
        ([(1, 1, 10, 0)], (241, 34), "241x34 sensor does not fit"),
        ([(1, 1, 10, 0)], (34, 257), r"at most 240x256\); write .npz"),
    ],
)
def test_what_the_nmnist_format_cannot_hold_is_refused(tmp_path, rows, size, match):
    with pytest.raises(ValueError, match=match):
        write_nmnist(tmp_path / "a.bin", stream(rows, height=size[0], width=size[1]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (b"", EmptyRecordingError, "0 bytes"),
        (OVERFLOW, EmptyRecordingError, "holds no events"),
        (nmnist_record(1, 1, 1, 1) + b"\0", ArtifactError, "6 bytes are not a multiple of 5"),
        (nmnist_record(1, 34, 1, 1), ArtifactError, r"y=34, outside the sensor's \[0, 34\)"),
        (b"<!DOCTYPE html>", ArtifactError, "x=60, outside"),
    ],
)
def test_a_malformed_nmnist_file_is_named(put, data, error, match):
    with pytest.raises(error, match=rf"recording\.bin: .*{match}") as caught:
        read_nmnist(put(data))
    assert (type(caught.value) is EmptyRecordingError) == (error is EmptyRecordingError)


@pytest.mark.parametrize("read", [read_nmnist, read_aedat2, read_npz])
def test_a_missing_recording_is_named(tmp_path, read):
    with pytest.raises(ArtifactError, match="nothing: no such recording; check the path"):
        read(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        read(tmp_path)


# AEDAT


def test_an_aedat2_address_is_taken_apart_and_turned(put):
    records = [(5 << 8 | 9 << 1 | 1, 1_000_000), (127 << 8 | 0 << 1, 0xFFFFFFFF), (0x23 << 8, 7)]
    events = read_aedat2(put(aedat2_file(records), "cifar10_cat_0.aedat"))
    assert rows(events) == [(122, 118, 1_000_000, 0), (0, 127, 0xFFFFFFFF, 1), (92, 127, 7, 1)]
    assert (events.height, events.width) == (128, 128)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (b"", EmptyRecordingError, "0 bytes"),
        (aedat2_file([]), EmptyRecordingError, "holds no events"),
        (aedat2_file([(2, 3)])[:-1], ArtifactError, "truncated: 7 bytes after the header"),
        (b"#!AER-DAT2.0", ArtifactError, "its last line has no end"),
        (aedat2_file([(2, 3)], [b"#!AER-DAT3.1\r\n"]), ArtifactError, "not AEDAT 2.0: it begins with b'#!AER-DAT3.1'"),
        (b"<!DOCTYPE html>", ArtifactError, "not AEDAT 2.0"),
    ],
)
def test_a_malformed_aedat2_file_is_named(put, data, error, match):
    with pytest.raises(error, match=rf"a\.aedat: .*{re.escape(match)}"):
        read_aedat2(put(data, "a.aedat"))


@pytest.mark.peer
def test_aedat2_events_equal_spikingjellys(put, monkeypatch, tmp_path):
    for name in ("torchaudio", "torchaudio.transforms", "torchaudio.functional"):  # of audio; wants another torch
        monkeypatch.setitem(sys.modules, name, MagicMock(__spec__=None))
    reference = pytest.importorskip(
        "spikingjelly.datasets.cifar10_dvs", reason="needs spikingjelly and its requirements"
    )
    rng = np.random.default_rng(0)
    path = put(aedat2_file(rng.integers(0, [1 << 15, 1 << 32], (500, 2)).tolist()), "a.aedat")
    reference._read_aedat_save_to_np(path, tmp_path / "wanted.npz")
    wanted, events = np.load(tmp_path / "wanted.npz"), read_aedat2(path)
    assert all(np.array_equal(wanted[name], getattr(events, name)) for name in "xytp")


@pytest.mark.peer
def test_an_aedat4_file_is_read(put):
    pytest.importorskip("aedat", reason="needs the package aedat, the extra tcvq-data[aedat4]")
    events = read_aedat4(GOLDEN / "tiny.aedat4")
    assert rows(events) == [(k, 2 * k, 1_000_000 + 10 * k, k % 2) for k in range(12)]
    assert (events.height, events.width) == (128, 128)
    whole = (GOLDEN / "tiny.aedat4").read_bytes()
    for damaged in (whole[:300], whole[:-200], b"<!DOCTYPE html>"):
        with pytest.raises(ArtifactError, match=r"b\.aedat4: damaged, or not AEDAT4"):
            read_aedat4(put(damaged, "b.aedat4"))


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("aedat", "read_aedat4('a.aedat4')"),
        ("h5py", "read_hdf5('a.h5', size=(4, 4))"),
    ],
)
def test_a_missing_extra_says_how_to_get_it(module, call):
    code = f"import sys; sys.modules[{module!r}] = None; from tcvq_data import events; events.{call}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    extra = {"aedat": "aedat4", "h5py": "hdf5"}[module]
    assert f"needs the package {module}: pip install 'tcvq-data[{extra}]'" in done.stderr.splitlines()[-1]


# Arrays


def test_an_npz_file_of_spikingjellys_layout_needs_a_size(tmp_path):
    arrays = {"t": np.array([5, 9]), "x": np.array([1, 2]), "y": np.array([3, 4]), "p": np.array([0, 1])}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ArtifactError, match=r"a\.npz: does not say its sensor's size; give size="):
        read_npz(tmp_path / "a.npz")
    assert rows(read_npz(tmp_path / "a.npz", size=(5, 3))) == [(1, 3, 5, 0), (2, 4, 9, 1)]
    with pytest.raises(ArtifactError, match=r"a\.npz: .*y=4, outside the sensor's \[0, 4\)"):
        read_npz(tmp_path / "a.npz", size=(4, 3))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"t": None}, "lacks t of x, y, t, p; it has x, y, p, sensor"),
        ({"t": np.array([0.5])}, "t is float64, not integer"),
        ({"t": np.array([1 << 63], np.uint64)}, "beyond int64"),
        ({"p": np.array([2])}, "p holds 2"),
        ({"x": np.array([-1])}, "x=-1, outside"),
        ({"x": np.array([1, 2])}, "of one length"),
        ({"x": np.array([object()])}, "Object arrays cannot be loaded"),
        ({"sensor": np.array([0, 9])}, "sensor size 9|sensor size 0"),
        ({"sensor": np.array([9.0, 9.0])}, "does not say its sensor's size"),
    ],
)
def test_a_malformed_npz_file_is_named(tmp_path, changed, match):
    arrays = {name: np.array([1]) for name in "xytp"} | {"sensor": np.array([9, 9])} | changed
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ArtifactError, match=rf"a\.npz: .*({match})"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_is_no_npz_is_named(put, tmp_path):
    write_npz(tmp_path / "whole.npz", stream([(1, 2, 3, 1)] * 50))
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "plain.npy", np.arange(3))
    for damaged in (
        b"<!DOCTYPE html>",
        whole[:-30],
        whole[:60] + b"\xff" * 9 + whole[69:],
        (tmp_path / "plain.npy").read_bytes(),
    ):
        with pytest.raises(ArtifactError, match=r"b\.npz: damaged, or not an \.npz file"):
            read_npz(put(damaged, "b.npz"))
    with pytest.raises(EmptyRecordingError, match="0 bytes"):
        read_npz(put(b"", "b.npz"))
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        write_npz(tmp_path / "a.bin", stream([]))


def test_the_same_events_make_the_same_npz_bytes(tmp_path):
    events = stream([(1, 2, 3, 1)])
    write_npz(tmp_path / "a.npz", events)
    write_npz(tmp_path / "b.npz", events)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.peer
def test_an_hdf5_file_is_read(put, tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the package h5py, the extra tcvq-data[hdf5]")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in {"x": [1, 639], "y": [2, 479], "t": [3, 4], "p": [0, 1]}.items():
            file.create_dataset(f"events/{name}", data=np.array(values, np.uint32))
    assert rows(read_hdf5(tmp_path / "a.h5", size=(480, 640))) == [(1, 2, 3, 0), (639, 479, 4, 1)]
    with pytest.raises(ArtifactError, match=r"a\.h5: lacks x, y, t, p .*it has nothing"):
        read_hdf5(tmp_path / "a.h5", size=(480, 640), group="other")
    with pytest.raises(ArtifactError, match=r"b\.h5: damaged, or not an HDF5 file"):
        read_hdf5(put((tmp_path / "a.h5").read_bytes()[:100], "b.h5"), size=(480, 640))


# In memory


def test_a_stream_converts_to_a_structured_array_and_back():
    events = stream([(1, 2, 3, 1), (4, 5, 6, 0)])
    array = events.structured()
    assert array.dtype.names == ("x", "y", "t", "p")
    assert rows(EventStream.from_structured(array, height=34, width=34)) == rows(events)
    with pytest.raises(ValueError, match="lacks the fields t;"):
        EventStream.from_structured(array[["x", "y", "p"]], height=34, width=34)


def test_a_coordinate_is_never_wrapped_into_the_sensor():
    with pytest.raises(ValueError, match="x=65537, outside"):
        stream([(65537, 0, 0, 0)])


def test_a_stream_refuses_arrays_that_do_not_fit_together():
    good = stream([(1, 2, 3, 1)])
    with pytest.raises(ValueError, match=r"events\.y is \(1,\) int64, not \(1,\) int16; see from_arrays"):
        EventStream.__post_init__(_changed(good, y=good.y.astype(np.int64)))
    with pytest.raises(ValueError, match=r"events\.x is \(2,\) int16, not \(1,\) int16"):
        EventStream.__post_init__(_changed(good, x=np.zeros(2, np.int16)))


def _changed(events, **arrays):
    copy = events.select(np.arange(len(events)))
    for name, array in arrays.items():
        object.__setattr__(copy, name, array)
    return copy


@pytest.mark.peer
def test_nmnist_events_equal_tonics(put):
    io = pytest.importorskip("tonic.io", reason="needs tonic; nox -s peers installs it")
    rng = np.random.default_rng(0)
    data = b"".join(
        OVERFLOW if rng.random() < 0.02 else nmnist_record(*rng.integers(0, [34, 34, 2, 1 << 23]).tolist())
        for _ in range(1000)
    )
    path = put(data)
    wanted = io.read_mnist_file(str(path), dtype=io.events_struct)
    assert np.array_equal(read_nmnist(path).structured(), wanted)
    write_nmnist(path.with_name("b.bin"), EventStream.from_structured(np.sort(wanted, order="t"), height=34, width=34))
    again = io.read_mnist_file(str(path.with_name("b.bin")), dtype=io.events_struct)
    assert np.array_equal(again, np.sort(wanted, order="t"))
