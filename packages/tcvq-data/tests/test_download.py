import gzip
import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import tcvq_data.download
import tcvq_data.fetch
from tcvq_data import ArtifactError, DataOptions, MissingDataError, download, open_dataset, verify
from tcvq_data.catalog import CATALOG, DatasetRecord, RemoteFile, describe_datasets, missing_parts
from tcvq_data.fetch import fetch
from tcvq_data.testing import idx_bytes, write_celeba, write_cifar10, write_mnist, write_nmnist_set

DATA = np.random.default_rng(0).bytes(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        behaviour = self.path.strip("/").split("/")[0]
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "busy" and len(self.server.requests) < 3:
            self.send_error(503)
            return
        start = int(self.headers["Range"][6:-1]) if "Range" in self.headers and behaviour != "ignores" else 0
        body = b"<!DOCTYPE html><p>quota exceeded</p>" if behaviour == "page" else self.server.files[self.path]
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = behaviour in ("cuts", "ignores") and len(self.server.requests) == 1
        self.wfile.write(body[start : start + 100_000] if cut else body[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(tcvq_data.fetch, "PAUSE_SECONDS", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.files, made.requests = {f"/{kind}/data.bin": DATA for kind in ("plain", "cuts", "ignores", "busy")}, []
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def md5(data):
    return hashlib.md5(data).hexdigest()


@pytest.mark.parametrize(
    ("kind", "ranges"),
    [
        ("plain", [None]),
        ("cuts", [None, "bytes=100000-"]),
        ("ignores", [None, "bytes=100000-"]),
        ("busy", [None, None, None]),
    ],
)
def test_a_file_arrives_whole_however_often_the_connection_breaks(server, tmp_path, kind, ranges):
    seen = []
    fetch([f"{server.url}/{kind}/data.bin"], tmp_path / "x", md5=md5(DATA), progress=lambda *a: seen.append(a))
    assert (tmp_path / "x").read_bytes() == DATA
    assert [each for _, each in server.requests] == ranges
    assert seen[-1] == ("x", len(DATA), len(DATA))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_part_of_an_interrupted_download_is_kept_and_gone_on_with(server, tmp_path):
    (tmp_path / "x.part").write_bytes(DATA[:200_000])
    fetch([f"{server.url}/plain/data.bin"], tmp_path / "x", md5=md5(DATA))
    assert server.requests == [("/plain/data.bin", "bytes=200000-")]
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_part_that_is_already_whole_needs_no_byte_more(server, tmp_path):
    (tmp_path / "x.part").write_bytes(DATA)
    fetch([f"{server.url}/plain/data.bin"], tmp_path / "x", md5=md5(DATA))
    assert (tmp_path / "x").read_bytes() == DATA


def test_an_interruption_leaves_a_part_and_no_file(server, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([f"{server.url}/plain/data.bin"], tmp_path / "x", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["x.part"]


def test_the_next_mirror_is_asked_when_one_does_not_have_the_file(server, tmp_path):
    fetch([f"{server.url}/missing/a", f"{server.url}/page/a", f"{server.url}/plain/data.bin"], tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("missing/a", "HTTP 404"),
        ("page/a", "a web page instead of the file, perhaps a quota or a login"),
        ("plain/data.bin", "MD5 .* instead of 0000"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(server, tmp_path, path, match):
    with pytest.raises(ArtifactError, match=match):
        fetch([f"{server.url}/{path}"], tmp_path / "x", md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def packed(folder, kind):
    buffer = io.BytesIO()
    if kind == "untar":
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(folder, folder.name)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def publish(server, monkeypatch, name, **archives):
    """Serve files under the names of a dataset's published ones."""
    files = []
    for file in CATALOG[name].files:
        body = archives[file.name.partition(".")[0].replace("-", "_")]
        server.files[f"/plain/{file.name}"] = body
        files.append(replace(file, mirrors=(f"{server.url}/plain/{file.name}",), md5=md5(body), payload_sha256=""))
    monkeypatch.setitem(CATALOG, name, replace(CATALOG[name], files=tuple(files)))


def test_cifar10_is_downloaded_unpacked_and_then_left_alone(server, tmp_path, monkeypatch):
    publish(server, monkeypatch, "cifar10", cifar_10_python=packed(write_cifar10(tmp_path / "theirs"), "untar"))
    root = tmp_path / "data"
    assert [path.name for path in download("cifar10", root)] == ["cifar-10-batches-py"]
    assert len(open_dataset("cifar10", "train", DataOptions(root=root))) == 20
    assert download("cifar10", root) == []
    assert len(server.requests) == 1
    assert sorted(path.name for path in root.iterdir()) == [".downloads", "cifar-10-batches-py"]


def test_mnist_is_downloaded_and_unpacked(server, tmp_path, monkeypatch):
    raw = write_mnist(tmp_path / "theirs")
    content = {path.name.replace("-", "_"): gzip.compress(path.read_bytes()) for path in raw.iterdir()}
    publish(server, monkeypatch, "mnist", **content)
    assert len(download("mnist", tmp_path / "data")) == 4
    assert len(open_dataset("mnist", "test", DataOptions(root=tmp_path / "data"))) == 10


def test_nmnist_is_downloaded_as_two_archives(server, tmp_path, monkeypatch):
    home = write_nmnist_set(tmp_path / "theirs")
    publish(server, monkeypatch, "nmnist", train=packed(home / "Train", "zip"), test=packed(home / "Test", "zip"))
    download("nmnist", tmp_path / "data")
    assert len(open_dataset("nmnist", "test", DataOptions(root=tmp_path / "data", limit=5), progress=None)) == 5


def evil_zip(name, mode=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "x")
    return buffer.getvalue()


def evil_tar(**what):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a")
        for key, value in what.items():
            setattr(info, key, value)
        tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("unpacking", "content", "match"),
    [
        ("unzip", evil_zip("../out"), "leads out of the folder"),
        ("unzip", evil_zip("/etc/out"), "leads out of the folder"),
        ("unzip", evil_zip("a", stat.S_IFLNK), "is a link"),
        ("unzip", b"PK\x03\x04 cut off", "damaged, or no archive"),
        ("untar", evil_tar(name="../out"), "leads out of the folder"),
        ("untar", evil_tar(type=tarfile.SYMTYPE, linkname="/etc"), "is a link"),
        ("untar", b"no tar", "damaged, or no archive"),
        ("gunzip", b"no gzip", "damaged gzip file"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(tmp_path, monkeypatch, unpacking, content, match):
    record = DatasetRecord(
        title="", shape="", sizes={}, licence="", reference="", home="it", expected=("a",),
        files=(RemoteFile(name="it.pack.gz", unpacking=unpacking, into="it"),),
    )  # fmt: skip
    monkeypatch.setitem(CATALOG, "it", record)
    (tmp_path / "it.pack.gz").write_bytes(content)
    with pytest.raises(ArtifactError, match=match):
        download("it", tmp_path / "data", source=tmp_path / "it.pack.gz")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "out").exists()


def test_files_that_the_user_has_are_taken_packed_or_unpacked(tmp_path, monkeypatch):
    raw = write_mnist(tmp_path / "theirs")
    names = [file.name for file in CATALOG["mnist"].files]
    monkeypatch.setitem(
        CATALOG, "mnist", replace(CATALOG["mnist"], files=tuple(replace(f, md5="") for f in CATALOG["mnist"].files))
    )
    gz = tmp_path / "gz"
    gz.mkdir()
    for name in names:
        (gz / name).write_bytes(gzip.compress((raw / name.removesuffix(".gz")).read_bytes()))
    for i, source in enumerate((gz, raw, tmp_path / "theirs")):
        download("mnist", tmp_path / str(i), source=source)
        assert len(open_dataset("mnist", "train", DataOptions(root=tmp_path / str(i)))) == 20


def test_a_recompressed_file_is_known_by_its_content(tmp_path, monkeypatch):
    payload = idx_bytes(np.zeros((2, 28, 28), np.uint8))
    first = replace(CATALOG["fashion-mnist"].files[0], payload_sha256=hashlib.sha256(payload).hexdigest())
    monkeypatch.setitem(CATALOG, "fashion-mnist", replace(CATALOG["fashion-mnist"], files=(first,)))
    (tmp_path / first.name).write_bytes(gzip.compress(payload, 1))
    with pytest.raises(MissingDataError, match="train-labels-idx1-ubyte is still missing"):
        download("fashion-mnist", tmp_path / "data", source=tmp_path / first.name)
    assert (tmp_path / "data/FashionMNIST/raw/train-images-idx3-ubyte").read_bytes() == payload
    (tmp_path / first.name).write_bytes(gzip.compress(payload[:-1] + b"x"))
    with pytest.raises(ArtifactError, match="wrong file"):
        download("fashion-mnist", tmp_path / "data", source=tmp_path / first.name)


def test_an_unpacked_folder_is_copied_whole(tmp_path):
    write_celeba(tmp_path / "theirs")
    download("celeba64", tmp_path / "data", source=tmp_path / "theirs" / "celeba")
    assert len(open_dataset("celeba64", "test", DataOptions(root=tmp_path / "data"))) == 10


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("cifar-10-python.tar.gz", b"<html>", "is a web page, not cifar-10-python"),
        ("cifar-10-python.tar.gz", b"something", "has MD5 .*, the published file c58f30108f718f92721af3b95e74349a"),
        ("other.zip", b"x", "is none of its files, which are called cifar-10-python.tar.gz"),
    ],
)
def test_a_wrong_file_of_the_user_is_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=match):
        download("cifar10", tmp_path / "data", source=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("celeba64", MissingDataError, "a program cannot fetch it; fetch img_align_celeba.zip and .* --from FOLDER"),
        ("imagenet", ValueError, "there is no dataset 'imagenet' to download; names: celeba-hq"),
        ("npz:x.npz", ValueError, "data of your own stay where they are"),
    ],
)
def test_what_cannot_be_downloaded_says_so(tmp_path, name, error, match):
    with pytest.raises(error, match=match):
        download(name, tmp_path)


def test_what_comes_with_the_package_needs_no_download(tmp_path):
    assert download("fashion-mini", tmp_path) == []
    assert verify("fashion-mini", tmp_path, deep=True).ok


def test_verifying_finds_missing_damaged_and_too_few_files(tmp_path):
    with pytest.raises(MissingDataError, match="tcvq data download mnist"):
        verify("mnist", tmp_path)
    raw = write_mnist(tmp_path)
    found = verify("mnist", tmp_path, deep=True)
    assert found.faults == (
        "mnist: 20 samples in train, 60000 are published",
        "mnist: 10 samples in test, 10000 are published",
    )
    assert next(found.lines()) == "ok     mnist, train split: 20 samples, all read"
    (raw / "train-images-idx3-ubyte").write_bytes(b"x")
    assert "not an idx file" in verify("mnist", tmp_path).faults[0]


def test_verifying_recordings_reads_them_without_a_cache(tmp_path):
    home = write_nmnist_set(tmp_path)
    (home / "Train/3/00004.bin").write_bytes(b"123")
    faults = verify("nmnist", tmp_path, deep=True).faults
    assert "00004.bin: truncated" in faults[0]
    assert not (tmp_path / ".cache").exists()


def test_the_list_says_what_is_here(tmp_path):
    write_mnist(tmp_path)
    lines = {line.split()[0]: line for line in describe_datasets(tmp_path)}
    assert " yes " in lines["mnist"]
    assert " no " in lines["cifar10"]
    assert " included " in lines["fashion-mini"]
    assert missing_parts("mnist", tmp_path) == []


def test_getting_a_dataset_deletes_nothing_that_was_there(tmp_path):
    home = write_nmnist_set(tmp_path / "theirs")
    (tmp_path / "data/NMNIST/Train").mkdir(parents=True)
    (tmp_path / "data/NMNIST/Train/notes.txt").write_text("mine")
    download("nmnist", tmp_path / "data", source=home)
    assert (tmp_path / "data/NMNIST/Train/notes.txt").read_text() == "mine"
    assert (tmp_path / "data/NMNIST/Train/3/00004.bin").is_file()


def test_an_empty_file_or_folder_is_missing_and_fetched_again(tmp_path):
    home = write_nmnist_set(tmp_path / "theirs")
    for split in ("Train", "Test"):
        (tmp_path / "data/NMNIST" / split).mkdir(parents=True)
    assert len(missing_parts("nmnist", tmp_path / "data")) == 2
    assert download("nmnist", tmp_path / "data", source=home)


def test_an_unpacked_file_that_is_not_the_published_one_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="wrong file"):
        download("fashion-mnist", tmp_path / "data", source=write_mnist(tmp_path, "FashionMNIST"))
