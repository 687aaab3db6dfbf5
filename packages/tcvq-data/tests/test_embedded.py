import gzip
import hashlib
import json
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch

import tcvq_data
import tcvq_data.embedded
from tcvq_data import ArtifactError, DataOptions, FashionMini, dataset_names, open_dataset
from tcvq_data.idx import gunzip, parse_idx
from tcvq_data.testing import check_image_source, idx_bytes

FOLDER = files("tcvq_data") / "embedded" / "fashion_mini"
SHA256 = {
    "train-images-idx3-ubyte": "d33512cfdc636a0d8972818e6659995be209a88891df7fa2109d7895922c8985",
    "train-labels-idx1-ubyte": "620cb8e3b9348037c5ff9a07b02d773ab165330e072dfd19e0d21c59f8042dcf",
    "t10k-images-idx3-ubyte": "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1",
    "t10k-labels-idx1-ubyte": "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c",
}


@pytest.fixture(scope="module")
def train():
    return FashionMini("train")


@pytest.mark.parametrize("name", SHA256)
def test_the_package_holds_the_documented_bytes(name):
    payload = gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
    assert hashlib.sha256(payload).hexdigest() == SHA256[name]


def test_the_package_holds_origin_and_licence():
    record = json.loads((FOLDER / "SOURCE.json").read_text(encoding="utf-8"))
    assert record["debian_version"] == "0.0~git20200523.55506a9-1"
    assert {name: hashes["subset"] for name, hashes in record["payload_sha256"].items()} == SHA256
    licence = (FOLDER / "LICENSE.fashion-mnist").read_text(encoding="utf-8")
    assert "2017, Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 200)])
def test_each_class_has_its_share(split, per_class):
    assert FashionMini(split).labels.bincount().tolist() == [per_class] * 10


def test_pixels_are_the_bytes_scaled_to_minus_one_and_one(train):
    payload = gzip.decompress((FOLDER / "train-images-idx3-ubyte.gz").read_bytes())
    raw = np.frombuffer(payload, np.uint8, offset=16).reshape(10_000, 28, 28)
    assert train.images.shape == (10_000, 1, 28, 28)
    assert (train.images.min(), train.images.max()) == (-1, 1)
    assert np.array_equal(((train.images[:, 0] + 1) * 127.5).round().numpy(), raw)
    assert raw.mean() / 255 == pytest.approx(0.2867, abs=5e-5)
    assert raw.std() / 255 == pytest.approx(0.3540, abs=5e-5)


def test_samples_are_rows_of_the_whole_tensors(train):
    assert torch.equal(train[17].image, train.images[17])
    assert train[17].label == train.labels[17]
    assert train.classes[train[0].label] == "Ankle boot"


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mini_keeps_the_contract_of_an_image_source(split):
    check_image_source(FashionMini(split))


def test_limit_takes_the_first_images_and_at_most_all(train):
    few = FashionMini("train", limit=7)
    assert len(few) == 7
    assert torch.equal(few.images, train.images[:7])
    assert len(FashionMini("test", limit=5000)) == 2000
    with pytest.raises(ValueError, match="limit=0 of fashion-mini/train must be positive"):
        FashionMini("train", limit=0)


def test_writing_into_one_copy_leaves_the_next_untouched():
    FashionMini("test", limit=2).images.fill_(9)
    FashionMini("test", limit=2).labels.fill_(9)
    assert FashionMini("test", limit=2).images.max() <= 1
    assert FashionMini("test", limit=2).labels.tolist() != [9, 9]


@pytest.fixture
def copy_of_the_data(tmp_path, monkeypatch):
    folder = tmp_path / "embedded" / "fashion_mini"
    folder.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "SOURCE.json"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr(tcvq_data.embedded, "files", lambda package: tmp_path)
    tcvq_data.embedded._load.cache_clear()
    yield folder
    tcvq_data.embedded._load.cache_clear()


def test_a_changed_label_is_noticed(copy_of_the_data):
    path = copy_of_the_data / "t10k-labels-idx1-ubyte.gz"
    payload = bytearray(gzip.decompress(path.read_bytes()))
    payload[-1] ^= 1
    path.write_bytes(gzip.compress(payload))
    with pytest.raises(ArtifactError, match=r"t10k-labels-idx1-ubyte\.gz: wrong checksum"):
        FashionMini("test")


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte.gz", "SOURCE.json"])
def test_a_missing_file_is_named(copy_of_the_data, name):
    (copy_of_the_data / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}.*reinstall tcvq-data"):
        FashionMini("test")


def test_an_idx_array_comes_back_writable():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    parsed = parse_idx(idx_bytes(array), name="x")
    assert np.array_equal(parsed, array)
    assert parsed.flags.writeable


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (b"<htm", "begins with 0x3c68746d"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an idx file of bytes"),
        (b"\0\0\x08\0", "not an idx file of bytes"),
        (b"\0\0\x08\x03\0\0\0\x01", "truncated idx header: 8 of 16 bytes"),
        (b"\0\0\x08\x01\0\0\0\x03ab", r"shape \(3,\), but 2 bytes follow"),
        (b"\0\0\x08\x01\0\0\0\x01ab", r"shape \(1,\), but 2 bytes follow"),
        (b"\0\0\x08\x03" + b"\xff" * 12, r"but 0 bytes follow"),
    ],
)
def test_a_malformed_idx_file_is_refused(payload, match):
    with pytest.raises(ArtifactError, match=match):
        parse_idx(payload, name="file")


@pytest.mark.parametrize("damage", [lambda d: b"plain", lambda d: d[:-9], lambda d: d[:20] + b"\xff" * 8 + d[28:]])
def test_a_damaged_gzip_file_is_refused(damage):
    data = gzip.compress(bytes(range(256)) * 4, mtime=0)
    with pytest.raises(ArtifactError, match="x: damaged gzip file"):
        gunzip(damage(data), name="x")


def test_open_dataset_opens_by_name():
    source = open_dataset("fashion-mini", "test", DataOptions(limit=3))
    assert isinstance(source, FashionMini)
    assert len(source) == 3
    assert "fashion-mini" in dataset_names()


def test_an_unknown_dataset_or_split_gets_a_suggestion():
    with pytest.raises(
        ValueError, match=r"'fashon-mini' is unknown; did you mean 'fashion-mini'\? known .*fashion-mini"
    ):
        open_dataset("fashon-mini", "train")
    with pytest.raises(ValueError, match=r"'imagenet' is unknown; known datasets: celeba-hq, .*, npz:PATH or hf:NAME"):
        open_dataset("imagenet", "train")
    with pytest.raises(ValueError, match="split 'val' of fashion-mini is unknown; it has train, test"):
        open_dataset("fashion-mini", "val")


def test_importing_the_package_imports_neither_lightning_nor_data():
    code = (
        "import sys, tcvq_data; assert 'lightning' not in sys.modules; "
        "from tcvq_data import embedded; assert embedded._load.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_every_exported_name_exists_and_others_do_not():
    assert all(hasattr(tcvq_data, name) for name in tcvq_data.__all__)
    assert not hasattr(tcvq_data, "nothing")
    assert tcvq_data.__version__.startswith(tcvq_data.INTERFACE_VERSION)
