import gzip
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tcvq_data import ArtifactError, DataOptions, FashionMini, MissingDataError, open_dataset
from tcvq_data.testing import check_image_source, idx_bytes, write_cifar10, write_mnist, write_npz_images
from tcvq_data.testing.arrays import python2_pickle

FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def pixels(source):
    return ((source.batch(list(range(len(source)))).image + 1) * 127.5).round().byte()


@pytest.mark.peer
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", FILES)
def test_mnist_reads_what_torchvision_reads(tmp_path, name, split):
    torchvision = pytest.importorskip("torchvision")
    write_mnist(tmp_path, FILES[name])
    source = open_dataset(name, split, DataOptions(root=tmp_path, size=28))
    theirs = getattr(torchvision.datasets, FILES[name])(tmp_path, train=split == "train")
    assert torch.equal(pixels(source)[:, 0], theirs.data)
    assert torch.equal(source.labels, theirs.targets)
    check_image_source(source)


def test_mnist_has_two_black_pixels_around_it_unless_told(tmp_path):
    write_mnist(tmp_path)
    padded, plain = (open_dataset("mnist", "train", DataOptions(root=tmp_path, size=size)) for size in (None, 28))
    assert padded[0].image.shape == (1, 32, 32)
    assert torch.equal(padded[0].image[:, 2:-2, 2:-2], plain[0].image)
    assert padded[0].image[:, :2].eq(-1).all()
    with pytest.raises(ValueError, match="size=27 of mnist/train is smaller than its 28x28 images"):
        open_dataset("mnist", "train", DataOptions(root=tmp_path, size=27))


def test_mnist_may_stay_compressed(tmp_path):
    raw = write_mnist(tmp_path)
    before = open_dataset("mnist", "test", DataOptions(root=tmp_path))[3].image
    for path in raw.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(open_dataset("mnist", "test", DataOptions(root=tmp_path))[3].image, before)


@pytest.mark.peer
@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_reads_what_torchvision_reads(tmp_path, split, monkeypatch):
    write_cifar10(tmp_path)
    cls = pytest.importorskip("torchvision").datasets.CIFAR10
    monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": None})
    with warnings.catch_warnings(action="ignore"):  # of numpy 2 about numpy.core and the pickled dtype
        theirs = cls(tmp_path, train=split == "train")
    source = open_dataset("cifar10", split, DataOptions(root=tmp_path))
    assert np.array_equal(pixels(source).permute(0, 2, 3, 1).numpy(), theirs.data)
    assert source.labels.tolist() == theirs.targets
    assert source.classes == tuple(theirs.classes)
    check_image_source(source)


def test_grey_is_that_of_pillow_and_colour_repeats_grey(tmp_path):
    write_cifar10(tmp_path)
    colour, grey = (open_dataset("cifar10", "test", DataOptions(root=tmp_path, channels=c)) for c in (3, 1))
    image = Image.fromarray(pixels(colour)[0].permute(1, 2, 0).numpy())
    assert (torch.from_numpy(np.array(image.convert("L"))).int() - pixels(grey)[0, 0].int()).abs().max() <= 1
    garment = open_dataset("fashion-mini", "test", DataOptions(channels=3, limit=2))
    assert garment[1].image.shape == (3, 28, 28)
    assert torch.equal(garment[1].image[2:], FashionMini("test")[1].image)


def code_runner():
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    return pickle.dumps({b"data": Evil(), b"labels": []})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "damaged, or not a CIFAR-10 file"),
        (b"<html>quota exceeded</html>", "damaged, or not a CIFAR-10 file"),
        (code_runner(), "refused, it asks for .*print, which no CIFAR file needs"),
        (python2_pickle([1, 2]), "without rows of 3072 bytes and as many labels"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "without rows of 3072 bytes"),
        (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "labels span 10 to 10"),
    ],
)
def test_a_file_that_is_not_cifar_is_refused_and_runs_no_code(tmp_path, capsys, content, match):
    (write_cifar10(tmp_path) / "test_batch").write_bytes(content)
    with pytest.raises(ArtifactError, match=match):
        open_dataset("cifar10", "test", DataOptions(root=tmp_path))
    assert capsys.readouterr().out == ""


def test_a_truncated_cifar_file_is_refused_at_every_length(tmp_path):
    path = write_cifar10(tmp_path) / "test_batch"
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="test_batch: damaged"):
            open_dataset("cifar10", "test", DataOptions(root=tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("train-images-idx3-ubyte", b"", "not an idx file"),
        ("train-images-idx3-ubyte", b"<!DOCTYPE html>", "not an idx file"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 28, 28), np.uint8))[:-1], "promises shape"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((19, 28, 28), np.uint8)), "19 images, but labels of shape"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros(20, np.uint8)), "swapped"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((0, 28, 28), np.uint8)), "at least one"),
        ("train-labels-idx1-ubyte", idx_bytes(np.full(20, 10, np.uint8)), "labels span 10 to 10, with 10 classes"),
    ],
)
def test_a_damaged_idx_file_is_refused_with_its_name(tmp_path, file, content, match):
    (write_mnist(tmp_path) / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=match):
        open_dataset("mnist", "train", DataOptions(root=tmp_path))


@pytest.mark.parametrize(("name", "path"), [("mnist", "MNIST/raw/train-images"), ("cifar10", "cifar-10-batches-py")])
def test_missing_data_say_what_where_and_both_ways_to_get_them(tmp_path, name, path):
    with pytest.raises(MissingDataError) as caught:
        open_dataset(name, "train", DataOptions(root=tmp_path))
    for part in (f"{tmp_path}/{path}", f"tcvq data download {name}", "--from"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "npz:x.npz", "fashion-mini", "fashion-mini-events"])
def test_an_unknown_split_is_an_error_that_lists_the_splits(tmp_path, name):
    with pytest.raises(ValueError, match=r"split 'dev' of .* it has train, test"):
        open_dataset(name, "dev", DataOptions(root=tmp_path))


def test_npz_images_are_split_by_number_and_seed(tmp_path):
    path = write_npz_images(tmp_path / "own.npz", n=300)
    splits = [open_dataset(f"npz:{path}", split) for split in ("train", "test")]
    assert [len(source) for source in splits] != [300, 0]
    assert sum(len(source) for source in splits) == 300
    assert 10 < len(splits[1]) < 60
    rows = {row.numpy().tobytes() for source in splits for row in pixels(source)}
    assert len(rows) == 300
    other = open_dataset(f"npz:{path}", "test", DataOptions(seed=1))
    assert len(other) != len(splits[1]) or not torch.equal(pixels(other), pixels(splits[1]))
    assert splits[0].classes == ("a", "b", "c")
    check_image_source(splits[1])


def test_npz_files_may_bring_their_own_splits_and_any_layout(tmp_path):
    grey, colour = np.zeros((4, 8, 8), np.uint8), np.full((2, 3, 8, 8), 255, np.uint8)
    np.savez(tmp_path / "a.npz", train_images=grey, test_images=colour, test_labels=np.array([0, 4]))
    train, test = (open_dataset(f"npz:{tmp_path}/a.npz", split, DataOptions(channels=3)) for split in ("train", "test"))
    assert (len(train), train[0].image.shape, int(train[0].label)) == (4, (3, 8, 8), -1)
    assert (test[1].image.min(), int(test[1].label), len(test.classes)) == (1, 4, 5)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"pictures": np.zeros(3, np.uint8)}, "lacks images, or train_images and test_images; it holds pictures"),
        ({"images": np.zeros((3, 8, 8), np.float32)}, "images are float32, not uint8"),
        ({"images": np.zeros((3, 2, 8, 8), np.uint8)}, r"not \(N, 1 or 3, H, W\)"),
        (
            {"images": np.zeros((40, 8, 8), np.uint8), "labels": np.zeros(3, int)},
            r"labels are int64 \(3,\), not one integer for each of 40",
        ),
        ({"images": np.zeros((40, 8, 8), np.uint8), "labels": np.zeros(40)}, "labels are float64"),
        ({"images": np.array([{"code": 1}])}, "damaged, or not an .npz file of plain arrays"),
    ],
)
def test_an_npz_file_that_holds_no_images_is_refused(tmp_path, arrays, match):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ArtifactError, match=match):
        open_dataset(f"npz:{tmp_path}/x.npz", "train")


def test_a_missing_or_truncated_npz_file_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"nowhere\.npz: no such file"):
        open_dataset(f"npz:{tmp_path}/nowhere.npz", "train")
    path = write_npz_images(tmp_path / "own.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="damaged"):
        open_dataset(f"npz:{path}", "train")


def test_npz_files_may_have_a_validation_split_and_names_of_classes(tmp_path):
    arrays = {f"{split}_images": np.full((2, 9, 8), i, np.uint8) for i, split in enumerate(("train", "test", "val"))}
    np.savez(tmp_path / "a.npz", **arrays, val_labels=np.array([1, -1]), classes=np.array(["x", "y"]))
    val = open_dataset(f"npz:{tmp_path}/a.npz", "val", DataOptions(size=12))
    assert val.classes == ("x", "y")
    assert val.labels.tolist() == [1, -1]
    assert val[0].image[0, 1:10, 2:10].eq(2 / 127.5 - 1).all()
    assert val[0].image.ne(-1).sum() == 72
    check_image_source(val)


def test_a_cifar_file_rewritten_by_python_3_reads_the_same(tmp_path):
    path = write_cifar10(tmp_path) / "test_batch"
    before = open_dataset("cifar10", "test", DataOptions(root=tmp_path))
    with warnings.catch_warnings(action="ignore"):
        content = pickle.loads(path.read_bytes(), encoding="bytes")
    path.write_bytes(pickle.dumps(content, protocol=2))
    after = open_dataset("cifar10", "test", DataOptions(root=tmp_path))
    assert torch.equal(pixels(after), pixels(before))
    assert torch.equal(after.labels, before.labels)
