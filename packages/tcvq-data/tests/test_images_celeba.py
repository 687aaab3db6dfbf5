import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tcvq_data import ArtifactError, DataOptions, MissingDataError
from tcvq_data.images.celeba import MAPPING, open_celeba64, open_celeba_hq
from tcvq_data.images.transforms import crop
from tcvq_data.testing import check_image_source
from tcvq_data.testing.folders import encode_picture, write_celeba, write_celeba_hq, write_celeba_hq_parquet

PEER_SPLITS = {"train": "train", "val": "valid", "test": "test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_celeba(root)
    return root


def hq(root, split="train", **options):
    return open_celeba_hq(split, DataOptions(root=root, **{"size": 16, **options}))


@pytest.mark.peer
@pytest.mark.parametrize(("split", "n"), [("train", 20), ("val", 10), ("test", 10)])
def test_celeba_is_that_of_torchvision(root, split, n):
    torchvision = pytest.importorskip("torchvision")
    datasets, transforms = torchvision.datasets, torchvision.transforms
    unchecked = {"file_list": [(*entry[:1], None, *entry[2:]) for entry in datasets.CelebA.file_list]}
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    peer = type("CelebA", (datasets.CelebA,), unchecked)(
        str(root), PEER_SPLITS[split], transform=lambda image: tensor(crop(image, 64))
    )
    source = open_celeba64(split, DataOptions(root=root))
    assert list(source.files) == peer.filename
    assert len(source) == len(peer) == n
    for i in range(0, n, 3):
        torch.testing.assert_close(source[i].image, peer[i][0], rtol=0, atol=2e-7)
    check_image_source(source, n_checked=3)
    assert (source.classes, set(source.labels.tolist())) == ((), {-1})


def test_an_unknown_split_of_celeba_lists_the_known_ones(root):
    with pytest.raises(ValueError, match="split 'valid' of celeba64 is unknown; it has train, val, test"):
        open_celeba64("valid", DataOptions(root=root))


def test_limit_takes_the_first_of_the_split(root):
    source = open_celeba64("test", DataOptions(root=root, limit=2, size=16, channels=1))
    assert source.files == ("000031.jpg", "000032.jpg")
    assert source[0].image.shape == (1, 16, 16)


def test_missing_images_of_celeba_are_one_error_with_the_first_and_the_count(tmp_path):
    images = write_celeba(tmp_path, n_train=6, n_val=1, n_test=1) / "img_align_celeba"
    for name in ("000003.jpg", "000005.jpg"):
        (images / name).unlink()
    with pytest.raises(MissingDataError, match=r"2 of 6 images of the train split are missing, the first is .*000003"):
        open_celeba64("train", DataOptions(root=tmp_path))
    assert len(open_celeba64("train", DataOptions(root=tmp_path, limit=2))) == 2


@pytest.mark.parametrize("line", ["000004.jpg", "000004.jpg 3", "<html>404 not found</html>", "a b 0"])
def test_a_damaged_line_of_the_partition_is_named(tmp_path, line):
    path = write_celeba(tmp_path, n_train=4, n_val=1, n_test=1) / "list_eval_partition.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\r\n".join([*lines[:3], line, *lines[4:]]), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"list_eval_partition\.txt line 4: .* is not NAME 0, 1 or 2"):
        open_celeba64("train", DataOptions(root=tmp_path))


def test_an_empty_partition_is_an_error_and_line_ends_of_windows_are_none(tmp_path):
    path = write_celeba(tmp_path, n_train=4, n_val=1, n_test=1) / "list_eval_partition.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(open_celeba64("train", DataOptions(root=tmp_path))) == 4
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="the train split has no image"):
        open_celeba64("train", DataOptions(root=tmp_path))


@pytest.mark.parametrize("path", ["celeba", "celeba/list_eval_partition.txt", "celeba/img_align_celeba"])
def test_missing_files_of_celeba_say_where_they_belong(tmp_path, path):
    write_celeba(tmp_path, n_train=1, n_val=1, n_test=1)
    (tmp_path / path).rename(tmp_path / "away")
    with pytest.raises(MissingDataError, match=f"celeba64: .*{path}.* is missing .*tcvq data download celeba64"):
        open_celeba64("train", DataOptions(root=tmp_path))


def test_a_truncated_face_is_one_error_that_names_it(tmp_path):
    images = write_celeba(tmp_path, n_train=2, n_val=1, n_test=1) / "img_align_celeba"
    (images / "000002.jpg").write_bytes((images / "000002.jpg").read_bytes()[:-400])
    with pytest.raises(ArtifactError, match=r"000002\.jpg: not a readable image .*truncated"):
        open_celeba64("train", DataOptions(root=tmp_path))[1]


def test_celeba_hq_is_split_as_celeba_where_the_mapping_says_how(tmp_path):
    write_celeba_hq(tmp_path)
    train, val, test = (hq(tmp_path, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (40, 10, 10)
    assert {int(file.split(".")[0]) % 6 for file in val.files} == {4}
    assert {int(file.split(".")[0]) % 6 for file in test.files} == {5}
    check_image_source(train, n_checked=3)
    assert open_celeba_hq("test", DataOptions(root=tmp_path))[0].image.shape == (3, 256, 256)


@pytest.mark.parametrize(("original", "split"), [(0, 0), (162_769, 0), (162_770, 1), (182_636, 1), (182_637, 2)])
def test_the_borders_of_the_splits_are_those_of_celeba(tmp_path, original, split):
    folder = write_celeba_hq(tmp_path, n=1)
    (folder / MAPPING).write_text(f"idx orig_idx orig_file\n0 {original} {original + 1:06}.jpg\n", encoding="utf-8")
    names = ["train", "val", "test"]
    assert len(hq(tmp_path, names.pop(split))) == 1
    for other in names:
        with pytest.raises(ArtifactError, match=f"none of its 1 images is in the {other} split"):
            hq(tmp_path, other)


def test_the_tree_of_celebamask_is_read_without_its_masks(tmp_path):
    folder = write_celeba_hq(tmp_path, n=12)
    images = folder / "CelebAMask-HQ" / "CelebA-HQ-img"
    (folder / "CelebAMask-HQ" / "masks").mkdir(parents=True)
    (folder / "CelebAMask-HQ" / "masks" / "00000_hair.png").write_bytes(encode_picture(0, "PNG"))
    images.mkdir()
    for path in folder.glob("*.jpg"):
        path.rename(images / path.name)
    (folder / MAPPING).rename(folder / "CelebAMask-HQ" / MAPPING)
    assert [len(hq(tmp_path, split)) for split in ("train", "val", "test")] == [8, 2, 2]


def test_without_the_mapping_a_hash_splits_celeba_hq(tmp_path):
    write_celeba_hq(tmp_path, mapping=False)
    train, test = hq(tmp_path, "train"), hq(tmp_path, "test")
    assert sorted(train.files + test.files) == sorted(f"{i}.jpg" for i in range(60))
    with pytest.raises(ValueError, match="split 'val' of celeba-hq is unknown; it has train, test"):
        hq(tmp_path, "val")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda f: (f / "face.jpg").write_bytes(encode_picture(0)), "'face.jpg' does not end in a number"),
        (lambda f: (f / "99.jpg").write_bytes(encode_picture(0)), "'99.jpg' does not end in a number"),
        (lambda f: (f / MAPPING).write_text("idx\n0 12 a.jpg\nrubbish\n"), "line 3: 'rubbish' is not NUMBER"),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_error(tmp_path, spoil, match):
    spoil(write_celeba_hq(tmp_path, n=6))
    with pytest.raises(ArtifactError, match=match):
        hq(tmp_path)


def test_parquet_shards_give_the_same_pictures_as_files(tmp_path):
    write_celeba_hq_parquet(tmp_path, n=60)
    write_celeba_hq(tmp_path / "files", n=60, mapping=False)
    train, test = hq(tmp_path, "train"), hq(tmp_path, "test")
    assert sorted(train.rows + test.rows) == list(range(60))
    file = {name: i for i, name in enumerate(hq(tmp_path / "files", "train").files)}
    for i, row in enumerate(train.rows):
        if f"{row}.jpg" in file:
            assert torch.equal(train[i].image, hq(tmp_path / "files", "train")[file[f"{row}.jpg"]].image)
    check_image_source(train)
    assert len(hq(tmp_path, "train", limit=3)) == 3


def test_the_arrow_copy_is_made_once_and_again_when_damaged_or_outdated(tmp_path):
    write_celeba_hq_parquet(tmp_path, n=60)
    copy = hq(tmp_path).path
    content, made = copy.read_bytes(), copy.stat().st_mtime_ns
    assert (hq(tmp_path).path, copy.stat().st_mtime_ns) == (copy, made)
    copy.write_bytes(content[:-100])
    assert torch.isfinite(hq(tmp_path)[0].image).all()
    assert copy.read_bytes() == content
    write_celeba_hq_parquet(tmp_path, n=80)
    assert len(hq(tmp_path, "train")) + len(hq(tmp_path, "test")) == 80
    assert [path.suffix for path in (tmp_path / ".cache").iterdir()] == [".arrow"]
    assert not copy.exists()


def test_shards_may_name_their_images_and_then_the_mapping_applies(tmp_path):
    folder = write_celeba_hq(tmp_path, n=12)
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.glob("*.jpg"))]
    for path in folder.glob("*.jpg"):
        path.unlink()
    pq.write_table(pa.table({"picture": images}), folder / "a.parquet")
    assert [len(hq(tmp_path, split)) for split in ("train", "val", "test")] == [8, 2, 2]


def test_a_plain_column_of_bytes_will_do_and_a_missing_image_is_named(tmp_path):
    (tmp_path / "celeba-hq").mkdir()
    images = [encode_picture(i) for i in range(30)]
    pq.write_table(pa.table({"x": list(range(30)), "image": [None, *images[1:]]}), tmp_path / "celeba-hq" / "a.parquet")
    sources = [hq(tmp_path, split) for split in ("train", "test")]
    source = next(s for s in sources if 0 in s.rows)
    with pytest.raises(ArtifactError, match=r"arrow row 0: not a readable image \(it has 0 bytes\)"):
        source[source.rows.index(0)]
    assert np.isfinite(source[1].image.numpy()).all()


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda p: p.write_bytes(b"PAR1 not at all"), "a.parquet is not a readable parquet file"),
        (lambda p: p.write_bytes(b""), "a.parquet is not a readable parquet file"),
        (
            lambda p: pq.write_table(pa.table({"file": ["a.jpg"]}), p),
            r"no column of encoded images \(its columns: file",
        ),
    ],
)
def test_shards_without_images_are_one_error_and_leave_no_copy(tmp_path, write, match):
    (tmp_path / "celeba-hq").mkdir()
    write(tmp_path / "celeba-hq" / "a.parquet")
    with pytest.raises(ArtifactError, match=match):
        hq(tmp_path)
    assert list((tmp_path / ".cache").iterdir()) == []


def test_missing_celeba_hq_says_where_it_belongs(tmp_path):
    with pytest.raises(MissingDataError, match="celeba-hq is missing"):
        hq(tmp_path)
    (tmp_path / "celeba-hq").mkdir()
    with pytest.raises(MissingDataError, match=r"celeba-hq/\*\.jpg is missing .* holds nothing"):
        hq(tmp_path)
