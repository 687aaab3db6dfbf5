import logging
import pickle
import shutil
from io import BytesIO

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tcvq_data import ArtifactError, DataOptions, MissingDataError
from tcvq_data.images.encoded import verify_images
from tcvq_data.images.lsun import lmdb_env, open_lsun_church
from tcvq_data.testing import check_image_source
from tcvq_data.testing.folders import write_lsun_church

NAME = "church_outdoor_train_lmdb"


@pytest.fixture
def root(tmp_path):
    write_lsun_church(tmp_path, n=40)
    return tmp_path


def church(root, split="train", **options):
    return open_lsun_church(split, DataOptions(root=root, **{"size": 16, **options}))


def stacked(source, **options):
    return torch.cat([batch.image for batch in DataLoader(source, batch_size=8, **options)])


def test_churches_are_divided_by_key(root):
    train, test = church(root), church(root, "test")
    keys = sorted([*train.keys.tolist(), *test.keys.tolist()])
    assert (len(set(keys)), len(keys[0])) == (40, 40)
    assert train.keys.tolist() == sorted(train.keys.tolist())
    assert len(test) > 0
    check_image_source(train)
    check_image_source(test)
    assert (train.classes, set(train.labels.tolist())) == ((), {-1})
    assert open_lsun_church("test", DataOptions(root=root))[0].image.shape == (3, 256, 256)
    assert len(church(root, limit=3)) == 3


def test_jpeg_and_webp_values_decode_to_what_pillow_reads(root):
    source, kinds = church(root, size=64), set()
    for i in range(len(source)):
        image = Image.open(BytesIO(source.encoded(i)[0]))
        kinds.add(image.format)
        expected = np.asarray(image.convert("RGB"))[:, 8:72].transpose(2, 0, 1)
        np.testing.assert_allclose(source[i].image.numpy(), expected / 127.5 - 1, rtol=0, atol=2e-7)
    assert kinds == {"JPEG", "WEBP"}


def test_two_sources_share_one_environment(root):
    train, test = church(root), church(root, "test")
    assert torch.isfinite(train[0].image).all()
    assert torch.isfinite(test[0].image).all()
    assert lmdb_env(train.path) is lmdb_env(test.path)


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_workers_of_every_kind_read_what_the_parent_reads(root, start, workers):
    source = church(root, size=8, limit=24)
    expected = stacked(source)
    assert torch.equal(stacked(source, num_workers=workers, multiprocessing_context=start), expected)
    assert torch.equal(stacked(source), expected)


def test_a_pickled_source_holds_no_environment(root):
    source = church(root)
    assert torch.isfinite(source[0].image).all()
    assert len(pickle.dumps(source)) < 4000
    assert verify_images(pickle.loads(pickle.dumps(source))) == []


def test_keys_are_listed_once_and_without_pickle(root, monkeypatch):
    first = church(root)
    (cached,) = (root / ".cache").iterdir()
    assert np.load(cached, allow_pickle=False).shape == (40,)
    monkeypatch.setattr("tcvq_data.images.lsun._list_keys", lambda path: pytest.fail("listed again"))
    assert np.array_equal(church(root).keys, first.keys)


@pytest.mark.parametrize("spoil", [lambda b: b[:-7], lambda b: b"", lambda b: b"\x80\x04pickle"])
def test_a_damaged_list_of_keys_is_made_again(root, spoil):
    first = church(root)
    (cached,) = (root / ".cache").iterdir()
    content = cached.read_bytes()
    cached.write_bytes(spoil(content))
    assert np.array_equal(church(root).keys, first.keys)
    assert cached.read_bytes() == content


def test_another_file_gets_another_list_of_keys(root, tmp_path_factory):
    assert len(church(root)) + len(church(root, "test")) == 40
    assert torch.isfinite(church(root)[0].image).all()
    other = write_lsun_church(tmp_path_factory.mktemp("other"), n=60)
    (other / "data.mdb").replace(root / NAME / "data.mdb")
    assert len(church(root)) + len(church(root, "test")) == 60
    assert torch.isfinite(church(root)[-1].image).all()
    assert len(list((root / ".cache").iterdir())) == 1


def test_where_no_list_can_be_kept_keys_are_listed_each_time(root, caplog):
    (root / ".cache").touch()
    with caplog.at_level(logging.WARNING):
        assert len(church(root)) > 30
    assert "are listed at each start" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda b: b"<html>quota exceeded</html>", "is damaged"),
        (lambda b: b"\0" * 8192, "is damaged"),
        (lambda b: b"", "is damaged"),
        (lambda b: b[: len(b) // 2], r"is damaged \(it has \d+ bytes of \d+\)"),
    ],
)
def test_a_damaged_file_is_one_error(root, spoil, match):
    path = root / NAME / "data.mdb"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ArtifactError, match=f"^lsun-church: .*data.mdb {match}"):
        church(root)


def test_an_empty_file_is_one_error(tmp_path):
    write_lsun_church(tmp_path, n=0)
    with pytest.raises(ArtifactError, match="it holds no image"):
        church(tmp_path)


def test_a_value_that_is_no_image_is_named_by_its_key(root):
    with lmdb.open(str(root / NAME), map_size=2**26) as env, env.begin(write=True) as transaction:
        for key in list(transaction.cursor().iternext(values=False)):
            transaction.put(key, b"text")
    source = church(root)
    with pytest.raises(ArtifactError, match=f"{NAME} key [0-9a-f]{{40}}: not a readable image"):
        source[0]
    assert len(verify_images(source)) == len(source)


def test_missing_churches_say_where_they_belong(tmp_path):
    with pytest.raises(MissingDataError, match=f"{NAME} is missing .*tcvq data download lsun-church"):
        church(tmp_path)
    write_lsun_church(tmp_path, n=1)
    shutil.move(tmp_path / NAME / "data.mdb", tmp_path / "away")
    with pytest.raises(MissingDataError, match=r"data\.mdb is missing .*holds lock\.mdb"):
        church(tmp_path)
    with pytest.raises(ValueError, match="split 'val' of lsun-church is unknown; it has train, test"):
        church(tmp_path, "val")
