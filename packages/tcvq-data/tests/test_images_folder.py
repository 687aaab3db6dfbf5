import logging
import multiprocessing
import os

import pytest
import torch

from tcvq_data import ArtifactError, DataOptions, MissingDataError
from tcvq_data.images.encoded import hash_split, verify_images
from tcvq_data.images.folder import list_images, open_image_folder, open_lsun_bedroom
from tcvq_data.images.transforms import crop
from tcvq_data.testing import check_image_source
from tcvq_data.testing.folders import encode_picture, write_image_folder, write_lsun_bedroom

OPTIONS = DataOptions(size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_image_folder(tmp_path_factory.mktemp("images"))


def both(folder, options=OPTIONS):
    return [open_image_folder(folder, split, options) for split in ("train", "test")]


def test_a_nested_folder_is_a_source_of_two_classes(folder):
    train, test = both(folder)
    assert train.classes == test.classes == ("cats", "dogs")
    assert [train.classes[k] for k in train.labels] == [file.split("/")[0] for file in train.files]
    assert list(train.files) == sorted(train.files)
    assert not set(train.files) & set(test.files)
    assert sorted(train.files + test.files) == list_images(folder).files
    assert len(train) + len(test) == 40
    for source in (train, test):
        check_image_source(source)
    assert train[0].image.shape == (3, 16, 16)


def test_grey_rgba_and_text_beside_photos_do_no_harm(folder):
    train, test = both(folder)
    files = train.files + test.files
    assert {"cats/grey.png", "dogs/small/rgba.png"} <= set(files)
    assert "cats/notes.txt" not in files


def test_size_channels_and_limit_are_options(folder):
    assert open_image_folder(folder, "train", DataOptions())[0].image.shape == (3, 64, 64)
    source = open_image_folder(folder, "train", DataOptions(size=8, channels=1, limit=5))
    assert (len(source), source[4].image.shape) == (5, (1, 8, 8))
    assert source.files == open_image_folder(folder, "train", OPTIONS).files[:5]
    check_image_source(source)


@pytest.mark.peer
def test_samples_equal_those_of_torchvision(folder):
    torchvision = pytest.importorskip("torchvision")
    datasets, transforms = torchvision.datasets, torchvision.transforms
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    peer = datasets.ImageFolder(str(folder), lambda image: tensor(crop(image, 16)))
    place = {os.path.relpath(path, folder): i for i, (path, _) in enumerate(peer.samples)}
    sources = both(folder)
    assert len(peer) == sum(map(len, sources))
    for source in sources:
        assert source.classes == tuple(peer.classes)
        for file, (image, label) in zip(source.files, source, strict=True):
            expected, number = peer[place[file]]
            torch.testing.assert_close(image, expected, rtol=0, atol=2e-7)
            assert int(label) == number


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "Validation"])
def test_folders_named_like_splits_are_the_splits(tmp_path, held_out):
    write_image_folder(tmp_path / "train", n=20)
    write_image_folder(tmp_path / held_out, n=6)
    (tmp_path / "stray.jpg").write_bytes(encode_picture(0))
    train, test = both(tmp_path)
    assert (len(train), len(test)) == (20, 6)
    assert train.classes == test.classes == ("cats", "dogs")
    with pytest.raises(ValueError, match=r"split 'val' of image-folder:.* is unknown; it has train, test"):
        open_image_folder(tmp_path, "val", OPTIONS)


def test_beside_a_test_folder_a_val_folder_is_a_third_split(tmp_path):
    for part, n in (("train", 9), ("val", 7), ("test", 5)):
        write_image_folder(tmp_path / part, n=n)
    assert [len(open_image_folder(tmp_path, split, OPTIONS)) for split in ("train", "val", "test")] == [9, 7, 5]


def test_a_class_that_only_the_test_has_does_not_shift_the_labels(tmp_path):
    for path in ("train/b/1.jpg", "train/c/1.jpg", "test/a/1.jpg", "test/c/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(encode_picture(0))
    train, test = both(tmp_path)
    assert train.classes == test.classes == ("a", "b", "c")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 2], [0, 2])


def test_a_lone_train_folder_is_divided_and_is_no_class(tmp_path):
    write_image_folder(tmp_path / "train")
    train, test = both(tmp_path)
    assert len(train) + len(test) == 40
    assert train.classes == ("cats", "dogs")


def test_one_image_outside_of_the_classes_means_no_classes(tmp_path):
    write_image_folder(tmp_path)
    (tmp_path / "loose.png").write_bytes(encode_picture(3, "PNG"))
    for source in both(tmp_path):
        assert (source.classes, set(source.labels.tolist())) == ((), {-1})
        check_image_source(source, n_checked=2)


def test_the_split_is_a_tenth_and_depends_on_the_seed():
    keys = [f"a/{i}.jpg" for i in range(5000)]
    test = hash_split(keys, "test", name="x", seed=0)
    assert abs(len(test) - 500) < 4 * (5000 * 0.1 * 0.9) ** 0.5
    assert sorted(test + hash_split(keys, "train", name="x", seed=0)) == list(range(5000))
    assert test != hash_split(keys, "test", name="x", seed=1)


def test_the_split_of_some_paths_is_what_it_was_when_released():
    assert hash_split([f"{i}.jpg" for i in range(40)], "test", name="x", seed=0) == [15, 29, 36]


def test_added_images_move_no_other_one(tmp_path):
    write_image_folder(tmp_path, n=30)
    before = [set(source.files) for source in both(tmp_path)]
    for i in range(30):
        (tmp_path / "cats" / f"more{i}.jpg").write_bytes(encode_picture(i))
    after = [set(source.files) for source in both(tmp_path)]
    assert before[0] < after[0]
    assert before[1] <= after[1]


def test_listing_skips_hidden_files_and_survives_links_in_circles(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.JPG").write_bytes(b"x")
    (tmp_path / "a" / "._x.JPG").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "y.jpg").write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list_images(tmp_path) == (["a/x.JPG"], [])


def test_a_file_of_no_bytes_is_skipped_counted_and_reported(tmp_path, caplog):
    write_image_folder(tmp_path, n=30)
    (tmp_path / "cats" / "a.jpg").touch()
    (tmp_path / "cats" / "b.png").touch()
    with caplog.at_level(logging.WARNING):
        source = open_image_folder(tmp_path, "train", OPTIONS)
    assert source.skipped == 2
    assert [r.getMessage() for r in caplog.records] == [
        f"image-folder:{tmp_path}: skipped 2 files of 0 bytes, first cats/a.jpg"
    ]


def test_damaged_images_are_named_at_access_and_all_found_by_verify(tmp_path):
    write_image_folder(tmp_path / "train", n=20)
    write_image_folder(tmp_path / "test", n=4)
    (tmp_path / "train/cats/000.jpg").write_bytes(b"this is a text")
    (tmp_path / "train/dogs/cut.jpg").write_bytes(encode_picture(0)[:-300])
    train, test = both(tmp_path)
    with pytest.raises(ArtifactError, match=r"train/cats/000\.jpg: not a readable image .*tcvq data verify lists all"):
        train[0]
    assert [line.split(":")[0] for line in verify_images(train)] == [
        str(tmp_path / "train/cats/000.jpg"),
        str(tmp_path / "train/dogs/cut.jpg"),
    ]
    assert verify_images(test) == []


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: None, MissingDataError, "does not exist; give the path of a folder that holds images"),
        (lambda p: p.touch(), MissingDataError, "is a file; give"),
        (lambda p: p.mkdir(), ArtifactError, r"holds no image with content \(it holds nothing\)"),
        (lambda p: (p.mkdir(), (p / "a.txt").touch(), (p / "b.jpg").touch()), ArtifactError, r"\(it holds a.txt, b.jp"),
    ],
)
def test_a_folder_without_images_is_one_error(tmp_path, make, error, match):
    make(tmp_path / "x")
    with pytest.raises(error, match=f"^image-folder:{tmp_path}/x: .*{match}"):
        open_image_folder(tmp_path / "x", "train", OPTIONS)


def test_a_folder_too_small_to_be_divided_says_what_to_do(tmp_path):
    (tmp_path / "1.jpg").write_bytes(encode_picture(0))
    with pytest.raises(ArtifactError, match=r"none of its 1 images falls into the test split.*folders train and test"):
        open_image_folder(tmp_path, "test", OPTIONS)


def test_bedrooms_are_divided_by_path(tmp_path):
    write_lsun_bedroom(tmp_path)
    train, test = (open_lsun_bedroom(split, DataOptions(root=tmp_path)) for split in ("train", "test"))
    assert train[0].image.shape == (3, 256, 256)
    assert (len(train) + len(test), set(train.files) & set(test.files)) == (100, set())
    assert len(test) >= 5
    assert train.files[0].startswith("data0/lsun/bedroom/")
    check_image_source(train, n_checked=2)
    check_image_source(open_lsun_bedroom("test", DataOptions(root=tmp_path, size=32, limit=3)))


def test_missing_bedrooms_say_where_they_belong(tmp_path):
    with pytest.raises(MissingDataError, match=r"lsun-bedroom-20 is missing .*tcvq data download lsun-bedroom-20"):
        open_lsun_bedroom("train", DataOptions(root=tmp_path))
    (tmp_path / "lsun-bedroom-20").mkdir()
    (tmp_path / "lsun-bedroom-20" / "archive.zip").touch()
    with pytest.raises(MissingDataError, match=r"\.jpg is missing .*holds archive\.zip"):
        open_lsun_bedroom("train", DataOptions(root=tmp_path))
    with pytest.raises(ValueError, match="split 'val' of lsun-bedroom-20 is unknown; it has train, test"):
        open_lsun_bedroom("val", DataOptions(root=tmp_path))


def test_samples_are_the_same_in_a_forked_process(folder):
    source = open_image_folder(folder, "train", OPTIONS)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        total = pool.apply(checksum, (source,))
    assert total == checksum(source)


def checksum(source):
    return float(sum(sample.image.double().sum() for sample in source))
