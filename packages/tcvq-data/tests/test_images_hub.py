import io
from itertools import islice

import datasets
import pytest
import torch
from PIL import Image

from tcvq_data import ArtifactError, DataOptions, MissingDataError, open_dataset
from tcvq_data.images.hub import HubStream, download_hub
from tcvq_data.testing import check_image_source, write_parquet_images
from tcvq_data.testing.folders import encode_picture


@pytest.fixture
def shards(tmp_path):
    return write_parquet_images(tmp_path / "shards")


@pytest.fixture
def root(tmp_path):
    return DataOptions(root=tmp_path / "data", size=32)


def test_parquet_shards_are_read_in_order_with_labels_and_names(shards, root):
    train, test = (open_dataset(f"hf:{shards}", split, root) for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (20, 10, ("circle", "square"))
    assert train.labels.tolist() == [0, 1] * 10
    whole = open_dataset(f"hf:{shards}", "train", DataOptions(root=root.root, size=64))
    picture = Image.open(io.BytesIO(encode_picture(13, "PNG"))).convert("RGB")
    left = (picture.width - 64) // 2
    expected = torch.tensor(list(picture.crop((left, 0, left + 64, 64)).tobytes())).view(64, 64, 3).permute(2, 0, 1)
    assert torch.equal(((whole[13].image + 1) * 127.5).round().long(), expected)
    check_image_source(train)


def test_a_downloaded_dataset_is_opened_by_its_name_without_the_network(shards, root, monkeypatch):
    folder = download_hub(str(shards), root.root)
    assert download_hub(str(shards), root.root) == folder
    monkeypatch.setattr(datasets, "load_dataset", None)
    train = open_dataset(f"hf:{folder}", "train", root)
    assert len(train) == 20
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_without_a_test_split_one_image_of_ten_is_held_out(tmp_path, root):
    write_parquet_images(tmp_path / "x", n_train=100, n_test=2)
    next((tmp_path / "x").glob("test*")).unlink()
    train, test = (open_dataset(f"hf:{tmp_path / 'x'}", split, root) for split in ("train", "test"))
    assert len(train) + len(test) == 100
    assert 2 < len(test) < 25


def test_a_stream_goes_on_where_it_stopped(shards):
    stream = HubStream(str(shards), "train", DataOptions(size=16))
    whole = [int(s.label) + float(s.image.mean()) for s in stream]
    assert len(whole) == 20
    first = HubStream(str(shards), "train", DataOptions(size=16))
    begun = [int(s.label) + float(s.image.mean()) for s in islice(first, 13)]
    second = HubStream(str(shards), "train", DataOptions(size=16))
    second.load_state_dict(first.state_dict())
    assert begun + [int(s.label) + float(s.image.mean()) for s in second] == whole


def test_what_is_not_on_disk_is_asked_for(tmp_path, root):
    with pytest.raises(MissingDataError, match="tcvq data download hf:someone/pictures:small"):
        open_dataset("hf:someone/pictures:small", "train", root)
    with pytest.raises(MissingDataError, match=r"holds no \.parquet files"):
        open_dataset(f"hf:{tmp_path}", "train", root)


def test_damaged_shards_and_tables_without_images_are_refused(tmp_path, shards, root):
    table = datasets.Dataset.from_dict({"text": ["a"]})
    (tmp_path / "text").mkdir()
    table.to_parquet(str(tmp_path / "text" / "train.parquet"))
    with pytest.raises(ArtifactError, match="no column of images; its columns are text"):
        open_dataset(f"hf:{tmp_path / 'text'}", "train", root)
    path = next(shards.glob("train*"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="is damaged"):
        open_dataset(f"hf:{shards}", "train", root)


def test_classes_without_names_count_through_all_splits_and_none_is_minus_one(tmp_path, root):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})

    def table(labels):
        images = [{"bytes": encode_picture(i, "PNG"), "path": None} for i in range(len(labels))]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    datasets.DatasetDict(train=table([0, None, 1]), test=table([4, 0])).save_to_disk(str(tmp_path / "saved"))
    train, test = (open_dataset(f"hf:{tmp_path / 'saved'}", split, root) for split in ("train", "test"))
    assert train.labels.tolist() == [0, -1, 1]
    assert train.classes == test.classes == ("0", "1", "2", "3", "4")
    check_image_source(train)
    datasets.DatasetDict(train=table([0, 10**6])).save_to_disk(str(tmp_path / "wild"))
    with pytest.raises(ArtifactError, match="column label spans 0 to 1000000"):
        open_dataset(f"hf:{tmp_path / 'wild'}", "train", root)


def test_a_changed_shard_is_read_anew(shards, root):
    before = open_dataset(f"hf:{shards}", "test", root)[0].image
    write_parquet_images(shards, n_train=30)
    train, test = (open_dataset(f"hf:{shards}", split, root) for split in ("train", "test"))
    assert len(train) == 30
    assert not torch.equal(test[0].image, before)
