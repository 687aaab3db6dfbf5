import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tcvq_data import ArtifactError, DataOptions, EventOptions, MissingDataError
from tcvq_data.batches import read_batch
from tcvq_data.events import SIMULATED, bin_events, denoise, read_aedat2, read_nmnist, read_npz, stabilise
from tcvq_data.frames import list_caches, open_dvs_cifar10, open_fashion_mini_events, open_nmnist
from tcvq_data.testing import check_image_source
from tcvq_data.testing.events import write_dvs_cifar10, write_nmnist_set

OPENERS = {"nmnist": open_nmnist, "dvs-cifar10": open_dvs_cifar10, "fashion-mini-events": open_fashion_mini_events}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_nmnist_set(root)
    write_dvs_cifar10(root)
    return root


def data(root, *, limit=None, size=None, seed=0, **events):
    return DataOptions(root=root, limit=limit, size=size, seed=seed, events=EventOptions(**events))


@pytest.mark.parametrize(("name", "n"), [("nmnist", 20), ("dvs-cifar10", 30), ("fashion-mini-events", 20)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_datasets_keep_the_contract_of_image_sources(root, name, n, split):
    source = OPENERS[name](split, data(root, limit=20 if name == "fashion-mini-events" else None))
    check_image_source(source, n_checked=5)
    assert len(source) == (20 if (name, split) == ("dvs-cifar10", "test") else n)
    side = 32 if name == "fashion-mini-events" else 64
    assert source[0].image.shape == (4, 2, side, side)
    assert len(source.classes) == 10
    everything = source.batch(list(range(len(source)))).image
    assert bool(everything.isfinite().all())
    assert float(everything.min()) == -1


def test_nmnist_equals_reading_its_files(root):
    source = open_nmnist("train", data(root, size=34, n_steps=6))
    files = [root / f"NMNIST/Train/{i % 10}/{i + 1:05d}.bin" for i in range(20)]
    direct = np.stack([bin_events(denoise(read_nmnist(path)), 6) for path in files])
    counts = torch.from_numpy(direct.astype(np.int32))
    assert source.labels.tolist() == [*range(10)] * 2
    assert torch.equal(source.counts(list(range(20))), counts)
    assert source.peak == direct.max()
    torch.testing.assert_close(source[13].image, 2 * counts[13] / source.peak - 1)


def test_stabilising_comes_before_the_filter(root):
    source = open_nmnist("train", data(root, limit=1, stabilise=True))
    direct = bin_events(denoise(stabilise(read_nmnist(root / "NMNIST/Train/0/00001.bin"))), 4)
    np.testing.assert_array_equal(source.counts([0])[0].numpy(), direct)


def test_empty_recordings_are_counted_named_and_left_out(root, caplog):
    source = open_nmnist("test", data(root))
    assert source.skipped == 10
    assert source.cache.manifest.skipped[0][0] == "0/00021.bin"
    assert "nmnist/test: 10 of 30 recordings were left out; the first is 0/00021.bin (" in caplog.text


def test_limit_reads_the_first_recordings_only(root, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "tcvq_data.frames.datasets.read_nmnist", lambda path: read.append(path.name) or read_nmnist(path)
    )
    options = DataOptions(root=tmp_path, limit=3, events=EventOptions(n_steps=3))
    (tmp_path / "NMNIST").symlink_to(root / "NMNIST")
    assert open_nmnist("train", options).labels.tolist() == [0, 1, 2]
    assert read == ["00001.bin", "00002.bin", "00003.bin"]


def test_dvs_cifar10_has_a_test_split_of_its_own(root):
    test, train = (open_dvs_cifar10(split, data(root)) for split in ("test", "train"))
    assert (len(test), len(train)) == (20, 30)
    names = [f"cifar10_{test.classes[i % 10]}_{i // 10}.aedat" for i in range(20)]
    for i in (0, 7, 19):
        direct = bin_events(denoise(read_aedat2(root / "DVSCIFAR10" / test.classes[i % 10] / names[i])), 4)
        np.testing.assert_array_equal(test.counts([i])[0].numpy(), direct)
    frames = {split: {f.tobytes() for f in s.cache.frames(list(range(len(s))))} for split, s in
              (("test", test), ("train", train))}  # fmt: skip
    assert len(frames["test"]) == 20
    assert frames["test"].isdisjoint(frames["train"])
    assert test.labels.bincount().tolist() == [2] * 10


def test_the_peak_is_that_of_the_training_split(root):
    train, test = (open_nmnist(split, data(root, size=34)) for split in ("train", "test"))
    counts = train.counts(list(range(len(train))))
    assert train.peak == test.peak == int(counts.max())
    torch.testing.assert_close(test[0].image, 2 * test.counts([0])[0].clamp(max=test.peak) / test.peak - 1)


def test_the_test_split_alone_is_built_where_no_peak_is_needed(root, tmp_path):
    (tmp_path / "NMNIST").symlink_to(root / "NMNIST")
    source = open_nmnist("test", data(tmp_path, scale="per_sample", limit=2))
    assert [entry.manifest.split for entry in list_caches(tmp_path)] == ["test"]
    assert source.peak is None
    open_nmnist("test", data(tmp_path, limit=2))
    assert sorted(entry.manifest.split for entry in list_caches(tmp_path)) == ["test", "train"]


def test_with_a_peak_per_sample_every_recording_reaches_one(root):
    source = open_nmnist("train", data(root, size=34, scale="per_sample"))
    images, _ = source.batch([0, 5, 19])
    assert images.amax(dim=(1, 2, 3, 4)).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="give one, such as peak=5"):
        source.to_counts(images)
    peak = int(source.counts([0]).max())
    assert torch.equal(source.to_counts(images[:1], peak=peak), source.counts([0]).long())


@pytest.mark.parametrize("resize", ["bilinear", "count"])
@pytest.mark.parametrize("size", [34, 48, 64])
def test_counts_come_back_exactly_from_frames_that_were_enlarged(root, resize, size):
    source = open_nmnist("train", data(root, size=size, resize=resize))
    images, _ = source.batch([0, 7])
    assert float(images.abs().max()) <= 1
    assert source.count_size == (34, 34)
    assert torch.equal(source.to_counts(images), source.counts([0, 7]).long())


def test_shrunk_frames_are_counted_at_their_own_size_and_keep_their_events(root):
    source = open_dvs_cifar10("train", data(root, resize="count"))
    images, _ = source.batch([0, 7])
    counts, before = source.to_counts(images), source.counts([0, 7])
    assert source.count_size == counts.shape[-2:] == (64, 64)
    assert torch.equal(counts, before.unflatten(-1, (64, 2)).unflatten(-3, (64, 2)).sum((-1, -3)))


@pytest.mark.parametrize("ending", [".bin", ".npz"])
def test_exported_frames_are_event_files_that_bin_to_the_same_counts(root, tmp_path, ending):
    source = open_nmnist("train", data(root))
    path = tmp_path / f"generated{ending}"
    events = source.export_events(source[4].image, path, seed=3)
    again = read_nmnist(path) if ending == ".bin" else read_npz(path)
    np.testing.assert_array_equal(again.t, events.t)
    span = (0, source.cache.manifest.duration_us)
    np.testing.assert_array_equal(bin_events(again, 4, span=span), source.counts([4])[0].numpy())
    with pytest.raises(ValueError, match=r"written to \.bin and \.npz"):
        source.export_events(source[4].image, tmp_path / "generated.txt")
    with pytest.raises(ValueError, match=r"\(32, 32\) are not of this source, whose frames have \(64, 64\)"):
        source.to_counts(torch.zeros(4, 2, 32, 32))


def test_simulated_recordings_say_that_they_are(root):
    source = open_fashion_mini_events("test", data(root, limit=3))
    assert source.note == SIMULATED
    other = open_fashion_mini_events("test", data(root, limit=3, seed=1))
    assert not torch.equal(source[0].image, other[0].image)
    assert torch.equal(source.labels, other.labels)


def test_a_source_is_pickled_as_a_path(root):
    source = open_nmnist("train", data(root))
    source[0]
    assert len(pickle.dumps(source)) < 8_000 < source.cache.frames([0]).nbytes


def test_a_spawned_worker_reads_the_same_batches(root):
    source = open_nmnist("train", data(root, size=34))
    source[0]
    loader = DataLoader(source, batch_size=8, num_workers=1, multiprocessing_context="spawn")
    images = torch.cat([batch.image for batch in loader])
    assert torch.equal(images, read_batch(source, list(range(20))).image)


@pytest.mark.parametrize("name", OPENERS)
def test_unknown_splits_and_channels_are_refused(root, name):
    with pytest.raises(ValueError, match=f"split 'val' of {name} is unknown; it has train, test"):
        OPENERS[name]("val", data(root))
    with pytest.raises(ValueError, match="events always have two"):
        OPENERS[name]("train", DataOptions(root=root, channels=3))


@pytest.mark.parametrize(("name", "path"), [("nmnist", "NMNIST/Test/0"), ("dvs-cifar10", "DVSCIFAR10/airplane")])
def test_missing_files_are_named_with_both_ways_to_get_them(tmp_path, name, path):
    with pytest.raises(MissingDataError, match=f"{path} is missing .*tcvq data download {name}.*--from"):
        OPENERS[name]("test", data(tmp_path))


def test_a_split_without_recordings_is_missing(tmp_path):
    home = write_dvs_cifar10(tmp_path)
    for path in home.glob("*/*_10?.aedat"):
        path.unlink()
    with pytest.raises(MissingDataError, match="recordings of the train split is missing"):
        open_dvs_cifar10("train", data(tmp_path))
    assert len(open_dvs_cifar10("test", data(tmp_path, scale="per_sample"))) == 20


def test_mixed_formats_and_strange_names_are_refused(tmp_path):
    home = write_dvs_cifar10(tmp_path)
    (home / "ship" / "cifar10_ship_5.aedat4").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"mixes \.aedat and \.aedat4"):
        open_dvs_cifar10("test", data(tmp_path))
    (home / "ship" / "cifar10_ship_5.aedat4").rename(home / "ship" / "copy of 5.aedat")
    with pytest.raises(ArtifactError, match=r"copy of 5\.aedat: its name has no number"):
        open_dvs_cifar10("test", data(tmp_path))


def test_damaged_recordings_are_skipped_with_their_reasons(tmp_path):
    home = write_dvs_cifar10(tmp_path)
    first, second = (home / "airplane" / f"cifar10_airplane_{i}.aedat" for i in (0, 1))
    first.write_bytes(first.read_bytes()[:-3])
    second.write_bytes(b"<html>not found</html>")
    source = open_dvs_cifar10("test", data(tmp_path))
    assert (len(source), source.skipped) == (18, 2)
    reasons = [why for _, why in source.cache.manifest.skipped]
    assert "truncated" in reasons[0]
    assert "not AEDAT 2.0" in reasons[1]
    assert bool(read_batch(source, list(range(18))).image.isfinite().all())


def test_saccades_are_not_undone_where_there_were_none(root):
    with pytest.raises(ValueError, match="saccades of N-MNIST"):
        open_dvs_cifar10("test", data(root, stabilise=True))


@pytest.mark.parametrize("inner", ["train", "Train/Train", "train/Train"])
def test_nmnist_is_found_where_its_zip_files_unpack_to(root, tmp_path, inner):
    (tmp_path / "NMNIST" / inner).parent.mkdir(parents=True)
    (tmp_path / "NMNIST" / inner).symlink_to(root / "NMNIST" / "Train")
    assert open_nmnist("train", data(tmp_path, limit=2)).labels.tolist() == [0, 1]


@pytest.mark.peer
def test_nmnist_frames_equal_tonics(root):
    tonic = pytest.importorskip("tonic")
    dataset = type("NMNIST", (tonic.datasets.NMNIST,), {"_check_exists": lambda self: True})
    pipeline = tonic.transforms.Compose(
        [tonic.transforms.Denoise(filter_time=10_000), tonic.transforms.ToFrame(sensor_size=(34, 34, 2), n_time_bins=6)]
    )
    theirs = dataset(str(root), train=True)
    source = open_nmnist("train", data(root, size=34, n_steps=6, rule="tonic"))
    position = {f"{i % 10}/{i + 1:05d}.bin": i for i in range(20)}
    compared = 0
    for i, path in enumerate(theirs.data):
        at = position.get("/".join(str(path).split("/")[-2:]))
        if at is None:
            continue
        events, label = theirs[i]
        assert torch.equal(source.counts([at])[0], torch.from_numpy(pipeline(events).astype(np.int32)))
        assert source.labels[at] == label
        compared += 1
    assert compared == 20
