import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tcvq_data import ArtifactError, EventOptions
from tcvq_data.events import EventStream, bin_events, denoise, simulate_saccades
from tcvq_data.frames import FileRecordings, SimulatedRecordings, list_caches, open_cache, prune_caches
from tcvq_data.frames.build import building, partial_folder
from tcvq_data.frames.manifest import cache_folder, cache_key
from tcvq_data.frames.parts import PART, Job, write_part
from tcvq_data.frames.worker import build_in_processes

OPTIONS = EventOptions(n_steps=4)
N = 2 * PART + 10  # three parts

PROCESSES = """
import os, pathlib, signal, sys
from tcvq_data import EventOptions
from tcvq_data.frames import SimulatedRecordings, open_cache

def build(root, progress):
    code = 1
    try:
        recordings = SimulatedRecordings(split="test", limit=int(sys.argv[2]))
        cache = open_cache(recordings, EventOptions(n_steps=4), root=pathlib.Path(root), progress=progress)
        cache.verify()
        code = 0
    finally:
        os._exit(code)

def fork(root, progress):
    child = os.fork()
    return child or build(root, progress)

def die(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

codes = []
for children in ([fork(sys.argv[1] + "/killed", die)], [fork(sys.argv[1] + "/raced", print) for _ in range(2)]):
    codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print("codes", *codes)
"""


@pytest.fixture(scope="module")
def recordings():
    return SimulatedRecordings(split="test", limit=N)


@pytest.fixture(scope="module")
def whole(recordings, tmp_path_factory):
    return open_cache(recordings, OPTIONS, root=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    run = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(root), str(N)], capture_output=True, text=True, check=False, timeout=120
    )
    return root, run


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole.folder.parents[3], tmp_path / "root")
    return tmp_path / "root"


def the_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folder_in(root, recordings):
    return cache_folder(root, cache_key(recordings, OPTIONS))


class Streams:
    """Recordings in memory that count how often each is read."""

    dataset, split, classes, height, width, note = "streams", "train", ("a", "b"), 4, 5, ""

    def __init__(self, streams):
        self.streams, self.read_count = streams, [0] * len(streams)
        self.labels = tuple(i % 2 for i in range(len(streams)))

    def name(self, index):
        return f"stream {index}"

    def read(self, index):
        self.read_count[index] += 1
        found = self.streams[index]
        if isinstance(found, Exception):
            raise found
        return found

    def identity(self):
        return {"n": len(self.streams)}


def stream(*rows):
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return EventStream.from_arrays(*columns, height=4, width=5)


def test_frames_are_what_reading_denoising_and_binning_give(whole, recordings):
    assert (len(whole), whole.manifest.dtype, whole.manifest.skipped) == (N, "uint8", ())
    for i in (0, PART, N - 1):
        direct = bin_events(denoise(recordings.read(i)), 4)
        np.testing.assert_array_equal(whole[i], direct)
    everything = whole.frames(list(range(N)))
    assert (int(everything.max()), int(everything.sum())) == (whole.manifest.max_count, whole.manifest.total_events)
    assert whole.labels().tolist() == list(recordings.labels)


def test_a_simulated_recording_depends_on_seed_split_and_number_alone(recordings):
    first = SimulatedRecordings(split="test", limit=5).read(3)
    np.testing.assert_array_equal(first.t, recordings.read(3).t)
    for other in (SimulatedRecordings(split="test", limit=5, seed=1), SimulatedRecordings(split="train", limit=5)):
        assert len(other.read(3)) != len(first) or not np.array_equal(other.read(3).t, first.t)


def test_a_batch_comes_in_the_order_asked_for(whole):
    index = [40, 3, 3, 70, 0]
    np.testing.assert_array_equal(whole.frames(index), np.stack([whole[i] for i in index]))
    assert whole.frames([]).shape == (0, 4, 2, 34, 34)


def test_a_file_opens_with_plain_numpy_and_the_manifest_spells_the_key_out(whole):
    assert np.load(whole.folder / "test.npy", mmap_mode="r").shape == (N, 4, 2, 34, 34)
    tree = json.loads((whole.folder / "meta.json").read_text())
    assert {"version", "dataset", "split", "n_steps", "rule", "denoise_us", "stabilise", "sensor"} < set(tree["key"])
    assert tree["key"]["recordings"]["seed"] == 0
    assert tree["key"]["recordings"]["parameters"]["noise_hz"] == 1.0
    assert tree["note"] == "simulated saccades, not the N-MNIST recording"


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(processes, whole, recordings, monkeypatch):
    root, run = processes
    assert "codes -9" in run.stdout, run.stderr
    root = root / "killed"
    folder = folder_in(root, recordings)
    partial = partial_folder(folder)
    assert [path.name for path in sorted(partial.iterdir())] == ["part-000000.npz"]
    assert not folder.exists()
    read = []
    monkeypatch.setattr(
        "tcvq_data.frames.recordings.simulate_saccades",
        lambda image, *, seed, config: read.append(seed[2]) or simulate_saccades(image, seed=seed, config=config),
    )
    seen = []
    cache = open_cache(recordings, OPTIONS, root=root, progress=lambda done, total: seen.append((done, total)))
    assert read == list(range(PART, N))
    assert seen[-1] == (N, N)
    assert len(seen) == 2
    assert the_files(cache.folder) == the_files(whole.folder)
    assert not partial.exists()


def test_two_processes_that_build_at_once_make_one_cache_and_no_debris(processes, whole, recordings):
    root, run = processes
    assert "codes -9 0 0" in run.stdout, run.stderr
    folder = folder_in(root / "raced", recordings)
    assert the_files(folder) == the_files(whole.folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".lock-{folder.name}", folder.name]


def test_a_builder_waits_for_another_and_then_reads_its_cache(whole, copied, recordings):
    folder = folder_in(copied, recordings)
    with building(folder), pytest.raises(BlockingIOError), building(folder, wait=False):
        raise AssertionError("two builders at once")
    with building(folder, wait=False):
        assert folder.exists()


def test_a_worker_process_writes_the_part_that_this_process_writes(tmp_path, recordings):
    here, there = (Job(recordings=recordings, options=OPTIONS, folder=tmp_path / name) for name in ("here", "there"))
    for job in (here, there):
        job.folder.mkdir()
    last = here.n_parts - 1
    write_part(here, last)
    built = build_in_processes(there, [last, 0], 1)
    assert next(built) == last
    assert here.path(last).read_bytes() == there.path(last).read_bytes()
    built.close()
    shutil.rmtree(there.folder)
    with pytest.raises(OSError, match="part-000002"):
        write_part(there, last)


def test_an_unharmed_cache_is_opened_without_reading_a_recording(copied, recordings, monkeypatch):
    monkeypatch.setattr("tcvq_data.frames.recordings.simulate_saccades", None)
    assert len(open_cache(recordings, OPTIONS, root=copied)) == N


def truncate(folder):
    os.truncate(folder / "test.npy", (folder / "test.npy").stat().st_size - 1)


def edit(folder):
    data = bytearray((folder / "test.npy").read_bytes())
    data[-1] ^= 1
    (folder / "test.npy").write_bytes(data)
    os.utime(folder / "meta.json", ns=(0, 0))  # a machine may write both within one tick of its clock


def remove_manifest(folder):
    (folder / "meta.json").unlink()


def damage_manifest(folder):
    (folder / "meta.json").write_text('{"key": {"version": 1}, "shape"')


def change_key(folder):
    tree = json.loads((folder / "meta.json").read_text())
    tree["key"]["denoise_us"] = 5
    (folder / "meta.json").write_text(json.dumps(tree))


def remove_labels(folder):
    (folder / "test_labels.npy").unlink()


def change_type(folder):
    np.save(folder / "test_labels.npy", np.zeros(N, np.float64))


@pytest.mark.parametrize(
    "harm", [truncate, edit, remove_manifest, damage_manifest, change_key, remove_labels, change_type]
)
def test_a_harmed_cache_is_built_again_and_never_read(harm, whole, tmp_path, caplog):
    one = SimulatedRecordings(split="test", limit=2)
    good = open_cache(one, OPTIONS, root=tmp_path)
    expected = the_files(good.folder)
    harm(good.folder)
    again = open_cache(one, OPTIONS, root=tmp_path)
    assert the_files(again.folder) == expected
    assert "is built again" in caplog.text


def test_what_changes_neither_size_nor_time_is_found_by_verify(tmp_path):
    one = SimulatedRecordings(split="test", limit=2)
    good = open_cache(one, OPTIONS, root=tmp_path)
    expected, path = the_files(good.folder), good.folder / "test.npy"
    edit(good.folder)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ArtifactError, match="wrong checksum"):
        good.verify()
    assert the_files(open_cache(one, OPTIONS, root=tmp_path, verify=True).folder) == expected


def test_everything_that_determines_the_frames_is_in_the_key(recordings, tmp_path):
    others = [
        EventOptions(n_steps=5),
        EventOptions(rule="count"),
        EventOptions(denoise_us=0),
        EventOptions(stabilise=True),
    ]
    keys = [cache_key(recordings, options) for options in [OPTIONS, *others]]
    keys += [
        cache_key(other, OPTIONS)
        for other in (
            SimulatedRecordings(split="test", limit=N, seed=1),
            SimulatedRecordings(split="test", limit=N - 1),
            SimulatedRecordings(split="train", limit=N),
        )
    ]
    assert len({cache_folder(tmp_path, key) for key in keys}) == len(keys)
    assert cache_key(recordings, EventOptions(resize="count", scale="per_sample")) == keys[0]


def test_changed_recordings_get_another_cache(tmp_path):
    def files():
        return FileRecordings(
            dataset="d", split="train", classes=("a",), labels=(0,), height=4, width=5,
            folder=tmp_path, files=("a.bin",), read_file=lambda path: stream((len(path.read_bytes()), 0, 0, 1)),
        )  # fmt: skip

    def cell():
        return np.argwhere(open_cache(files(), EventOptions(denoise_us=0), root=tmp_path)[0])[:, 3].tolist()

    (tmp_path / "a.bin").write_bytes(b"1")
    assert cell() == [1]
    (tmp_path / "a.bin").write_bytes(b"123")
    assert cell() == [3]
    os.utime(tmp_path / "a.bin", ns=(1, 1))
    assert cell() == [3]
    assert len(list_caches(tmp_path)) == 3


def test_empty_and_damaged_recordings_are_left_out_and_reported(tmp_path):
    good = stream((1, 1, 0, 1), (2, 1, 5, 0))
    source = Streams([good, ArtifactError("stream 1: truncated"), good, stream(), good])
    cache = open_cache(source, EventOptions(n_steps=2, denoise_us=0), root=tmp_path)
    assert cache.manifest.skipped == (
        ("stream 1", "stream 1: truncated"),
        ("stream 3", "stream 3: holds no events"),
    )
    assert cache.labels().tolist() == [0, 0, 0]
    assert cache.frames([0, 1, 2]).sum(axis=(1, 2, 3, 4)).tolist() == [2, 2, 2]
    assert cache.manifest.duration_us == 6


def test_a_recording_that_the_filter_empties_is_left_out(tmp_path):
    alone, supported = stream((1, 1, 90_000, 1)), stream((1, 1, 0, 1), (2, 1, 5, 0))
    cache = open_cache(Streams([alone, supported]), OPTIONS, root=tmp_path)
    assert cache.manifest.skipped == (
        ("stream 0", "stream 0: none of its 1 events is left after denoising and binning"),
    )


def test_a_dataset_with_no_usable_recording_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"streams/train: none of 2 recordings can be used; the first: stream 0: h"):
        open_cache(Streams([stream(), stream()]), OPTIONS, root=tmp_path)
    assert list_caches(tmp_path) == []


def test_counts_beyond_255_are_stored_as_uint16(tmp_path):
    many = stream(*[(0, 0, 0, 1)] * 300)
    cache = open_cache(
        Streams([many, *[stream((1, 1, 0, 1))] * PART]), EventOptions(n_steps=1, denoise_us=0), root=tmp_path
    )
    assert (cache[0].dtype, cache[0].max(), cache[PART].max()) == (np.uint16, 300, 1)
    assert (cache.manifest.dtype, cache.manifest.max_count) == ("uint16", 300)


def test_a_damaged_part_is_built_again(tmp_path):
    streams = [stream((1, 1, 0, 1), (2, 1, 5, 0))] * (PART + 1)
    source, options = Streams(streams), EventOptions(n_steps=2)
    folder = cache_folder(tmp_path, cache_key(source, options))
    job = Job(recordings=source, options=options, folder=partial_folder(folder))
    job.folder.mkdir(parents=True)
    for number in (0, 1):
        write_part(job, number)
    data = bytearray(job.path(0).read_bytes())
    data[data.find(b"\x93NUMPY") + 128 + 40] ^= 1  # a cell of the first frame
    job.path(0).write_bytes(data)
    cache = open_cache(source, options, root=tmp_path)
    assert source.read_count == [2] * PART + [1]
    np.testing.assert_array_equal(cache[0], cache[1])


def test_recordings_that_change_while_they_are_read_are_an_error(tmp_path):
    class Growing(Streams):
        n = 0

        def identity(self):
            self.n += 1
            return {"n": self.n}

    with pytest.raises(ArtifactError, match="changed while they were read; run again"):
        open_cache(Growing([stream((1, 1, 0, 1))]), OPTIONS, root=tmp_path)
    assert list_caches(tmp_path) == []


def test_arguments_are_checked(recordings, tmp_path):
    options = EventOptions()
    object.__setattr__(options, "rule", "times")
    with pytest.raises(ValueError, match=r"rule 'times' .*unknown; rules: time, count, tonic"):
        open_cache(recordings, options, root=tmp_path)
    with pytest.raises(ValueError, match="workers=0"):
        open_cache(recordings, OPTIONS, root=tmp_path, workers=0)


def test_a_cache_that_vanishes_is_one_clear_error(tmp_path):
    cache = open_cache(Streams([stream((1, 1, 0, 1))]), EventOptions(denoise_us=0), root=tmp_path)
    shutil.rmtree(cache.folder)
    with pytest.raises(ArtifactError, match=r"train\.npy: vanished .*open the dataset again"):
        cache[0]


def test_pruning_removes_what_cannot_be_read_and_what_is_old(tmp_path):
    options = EventOptions(denoise_us=0)
    cache = open_cache(Streams([stream((1, 1, 0, 1))]), options, root=tmp_path)
    other = open_cache(Streams([stream((1, 1, 0, 1))] * 2), options, root=tmp_path)
    truncate_me = other.folder / "train.npy"
    os.truncate(truncate_me, 10)
    unfinished = cache.folder.with_name(".partial-0123456789ab")
    unfinished.mkdir()
    assert {entry.path: entry.fault == "" for entry in list_caches(tmp_path)} == {
        cache.folder: True,
        other.folder: False,
        unfinished: False,
    }
    assert {entry.path for entry in prune_caches(tmp_path, dry_run=True)} == {other.folder, unfinished}
    assert prune_caches(tmp_path, dataset="nmnist") == []
    with building(unfinished.with_name("0123456789ab")):
        assert [entry.path for entry in prune_caches(tmp_path)] == [other.folder]
    assert [entry.path for entry in prune_caches(tmp_path)] == [unfinished]
    assert prune_caches(tmp_path, older_than_days=1) == []
    entry = list_caches(tmp_path)[0]
    assert (entry.dataset, entry.manifest.shape[0], entry.built <= time.time()) == ("streams", 1, True)
    assert entry.n_bytes == sum(len(data) for data in the_files(cache.folder).values())
    assert [found.path for found in prune_caches(tmp_path, older_than_days=0)] == [cache.folder]
    assert list(cache.folder.parent.iterdir()) == []
