import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tcvq_data import dataset_names
from tcvq_data.catalog import CATALOG


def test_every_dataset_has_a_record():
    assert set(CATALOG) == set(dataset_names())


@pytest.mark.parametrize("name", CATALOG)
def test_a_record_says_how_to_get_the_data(name):
    record = CATALOG[name]
    assert record.title
    assert record.licence
    assert record.reference
    assert all(n > 0 for n in record.sizes.values())
    for file in record.files:
        assert file.mirrors or record.manual, f"{file.name}: neither a mirror nor a way for a person"
        assert all(re.match(r"https?://[\w.-]+/", url) for url in file.mirrors)
        assert re.fullmatch(r"|[0-9a-f]{32}", file.md5)
        assert re.fullmatch(r"|[0-9a-f]{64}", file.payload_sha256)


@pytest.mark.peer
@pytest.mark.parametrize(("name", "theirs"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_addresses_and_checksums_of_mnist_are_those_of_torchvision(name, theirs):
    dataset = getattr(pytest.importorskip("torchvision").datasets, theirs)
    assert {file.name: file.md5 for file in CATALOG[name].files} == dict(dataset.resources)
    assert CATALOG[name].files[0].mirrors == tuple(f"{mirror}{dataset.resources[0][0]}" for mirror in dataset.mirrors)


@pytest.mark.peer
def test_checksums_of_cifar10_and_celeba_are_those_of_torchvision():
    theirs = pytest.importorskip("torchvision").datasets
    (archive,) = CATALOG["cifar10"].files
    assert (archive.mirrors[0], archive.md5) == (theirs.CIFAR10.url, theirs.CIFAR10.tgz_md5)
    published = {name: md5 for _, md5, name in theirs.CelebA.file_list}
    assert all(published[file.name] == file.md5 for file in CATALOG["celeba64"].files)


@pytest.mark.peer
def test_addresses_and_checksums_of_nmnist_are_those_of_tonic():
    tonic = pytest.importorskip("tonic")
    train, test = CATALOG["nmnist"].files
    assert (train.mirrors[0], train.md5) == (tonic.datasets.NMNIST.train_url, tonic.datasets.NMNIST.train_md5)
    assert (test.mirrors[0], test.md5) == (tonic.datasets.NMNIST.test_url, tonic.datasets.NMNIST.test_md5)


@pytest.mark.peer
def test_addresses_and_checksums_of_dvs_cifar10_are_those_of_spikingjelly():
    package = find_spec("spikingjelly")
    if package is None or not package.submodule_search_locations:
        pytest.skip("spikingjelly is not installed")
    source = Path(package.submodule_search_locations[0], "datasets", "cifar10_dvs.py").read_text()  # needs torchaudio
    rows = re.findall(r'"(\w+\.zip)",\s*"(https://[^"]+)",\s*"([0-9a-f]{32})"', source)
    assert {(file.name, file.mirrors[0], file.md5) for file in CATALOG["dvs-cifar10"].files} == set(rows)
