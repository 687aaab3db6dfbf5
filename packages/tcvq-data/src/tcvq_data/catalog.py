"""What is published about each dataset: its size, its licence, where its files are, and how to know them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tcvq_data.layout import data_root

Unpacking = Literal["gunzip", "unzip", "untar", "copy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file of a dataset as its authors publish it.

    Attributes:
        name: File name.
        mirrors: Addresses, tried in turn; empty where only a person can fetch it.
        md5: Of the file; empty where none is published.
        unpacking: What is done with it.
        into: Folder under the data root that it, or its content, goes into.
        payload_sha256: Of the uncompressed content, by which re-compressed copies are known; empty if not known.
    """

    name: str
    mirrors: tuple[str, ...] = ()
    md5: str = ""
    unpacking: Unpacking = "copy"
    into: str = ""
    payload_sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRecord:
    """What there is to know of a dataset.

    Attributes:
        title: Its name in prose.
        shape: Of one sample as the paper uses it; T stands for the steps.
        sizes: Samples per split.
        licence: As its authors state it.
        reference: Where it is described.
        home: Its folder under the data root.
        expected: What must be in there.
        files: What is fetched.
        manual: How a person gets it where a program cannot.
    """

    title: str
    shape: str
    sizes: dict[str, int]
    licence: str
    reference: str
    home: str = ""
    expected: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    manual: str = ""


def _idx_files(folder: str, mirrors: tuple[str, ...], rows: tuple[tuple[str, str, str], ...]) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            name=f"{name}-ubyte.gz",
            mirrors=tuple(f"{mirror}{name}-ubyte.gz" for mirror in mirrors),
            md5=md5,
            unpacking="gunzip",
            into=f"{folder}/raw",
            payload_sha256=sha256,
        )
        for name, md5, sha256 in rows
    )


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MNIST = (
    ("train-images-idx3", "f68b3c2dcbeaaa9fbdd348bbdeb94873", ""),
    ("train-labels-idx1", "d53e105ee54ea40749a09fcbcd1e9432", ""),
    ("t10k-images-idx3", "9fb629c4189551a2d022fa330f9573f3", ""),
    ("t10k-labels-idx1", "ec29112dd5afa0611ce80d1b7f02629c", ""),
)
_FASHION = (
    (
        "train-images-idx3",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    (
        "train-labels-idx1",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    (
        "t10k-images-idx3",
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    (
        "t10k-labels-idx1",
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
_DVS_CIFAR10 = (  # class, number of the file on figshare, MD5
    ("airplane", "7712788", "0afd5c4bf9ae06af762a77b180354fdd"),
    ("automobile", "7712791", "8438dfeba3bc970c94962d995b1b9bdd"),
    ("bird", "7712794", "a9c207c91c55b9dc2002dc21c684d785"),
    ("cat", "7712812", "52c63c677c2b15fa5146a8daf4d56687"),
    ("deer", "7712815", "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    ("dog", "7712818", "f379ebdf6703d16e0a690782e62639c3"),
    ("frog", "7712842", "cad6ed91214b1c7388a5f6ee56d08803"),
    ("horse", "7712851", "e7cbbf77bec584ffbf913f00e682782a"),
    ("ship", "7712836", "41c7bd7d6b251be82557c6cce9a7d5c9"),
    ("truck", "7712839", "89f3922fd147d9aeff89e76a2b0b70a7"),
)
_NMNIST_HOST = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"

CATALOG: dict[str, DatasetRecord] = {
    "mnist": DatasetRecord(
        title="MNIST, handwritten digits",
        shape="1x32x32",
        sizes={"train": 60_000, "test": 10_000},
        licence="CC-BY-SA-3.0",
        reference="LeCun et al. 1998",
        home="MNIST/raw",
        expected=_IDX,
        files=_idx_files(
            "MNIST", ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"), _MNIST
        ),
    ),
    "fashion-mnist": DatasetRecord(
        title="Fashion-MNIST, garments",
        shape="1x32x32",
        sizes={"train": 60_000, "test": 10_000},
        licence="MIT",
        reference="Xiao et al. 2017, arXiv 1708.07747",
        home="FashionMNIST/raw",
        expected=_IDX,
        files=_idx_files("FashionMNIST", ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",), _FASHION),
        manual="Debian and Ubuntu: apt install dataset-fashion-mnist, then --from /usr/share/datasets/fashion-mnist",
    ),
    "cifar10": DatasetRecord(
        title="CIFAR-10, small colour images",
        shape="3x32x32",
        sizes={"train": 50_000, "test": 10_000},
        licence="not stated",
        reference="Krizhevsky 2009",
        home="cifar-10-batches-py",
        expected=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
        files=(
            RemoteFile(
                name="cifar-10-python.tar.gz",
                mirrors=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                md5="c58f30108f718f92721af3b95e74349a",
                unpacking="untar",
            ),
        ),
    ),
    "celeba64": DatasetRecord(
        title="CelebA, faces, cropped to 64x64",
        shape="3x64x64",
        sizes={"train": 162_770, "val": 19_867, "test": 19_962},
        licence="non-commercial research",
        reference="Liu et al. 2015",
        home="celeba",
        expected=("img_align_celeba", "list_eval_partition.txt"),
        files=(
            RemoteFile(
                name="img_align_celeba.zip",
                md5="00d2c5bc6d35e252742224ab0c1e8fcb",
                unpacking="unzip",
                into="celeba",
            ),
            RemoteFile(name="list_eval_partition.txt", md5="d32c9cbf5e040fd4025c592c306e6668", into="celeba"),
        ),
        manual="fetch img_align_celeba.zip and list_eval_partition.txt with a browser from the Google Drive folder "
        "that mmlab.ie.cuhk.edu.hk/projects/CelebA.html links to; programs are stopped by its quota",
    ),
    "celeba-hq": DatasetRecord(
        title="CelebA-HQ, faces in high resolution",
        shape="3x256x256",
        sizes={"all": 30_000},
        licence="non-commercial research",
        reference="Karras et al. 2018, arXiv 1710.10196",
        home="celeba-hq",
        files=(RemoteFile(name="CelebAMask-HQ.zip", unpacking="unzip", into="celeba-hq"),),
        manual="fetch any copy: a folder of images, CelebAMask-HQ.zip from github.com/switchablenorms/CelebAMask-HQ, "
        "or parquet shards from a hub; there is no canonical form",
    ),
    "lsun-bedroom-20": DatasetRecord(
        title="LSUN bedroom, 20 per cent",
        shape="3x256x256",
        sizes={"all": 303_125},
        licence="not stated",
        reference="Yu et al. 2015, arXiv 1506.03365",
        home="lsun-bedroom-20",
        files=(RemoteFile(name="archive.zip", unpacking="unzip", into="lsun-bedroom-20"),),
        manual="fetch kaggle.com/datasets/jhoward/lsun_bedroom with an account, which gives archive.zip",
    ),
    "lsun-church": DatasetRecord(
        title="LSUN church, outdoors",
        shape="3x256x256",
        sizes={"all": 126_227},
        licence="not stated",
        reference="Yu et al. 2015, arXiv 1506.03365",
        home="church_outdoor_train_lmdb",
        expected=("data.mdb",),
        files=(
            RemoteFile(
                name="church_outdoor_train_lmdb.zip",
                mirrors=("http://dl.yf.io/lsun/scenes/church_outdoor_train_lmdb.zip",),
                unpacking="unzip",
            ),
        ),
    ),
    "nmnist": DatasetRecord(
        title="N-MNIST, MNIST before an event camera",
        shape="Tx2x64x64",
        sizes={"train": 60_000, "test": 10_000},
        licence="CC-BY-SA-4.0",
        reference="Orchard et al. 2015, doi:10.3389/fnins.2015.00437",
        home="NMNIST",
        expected=("Train", "Test"),
        files=tuple(
            RemoteFile(
                name=f"{name}.zip",
                mirrors=(f"{_NMNIST_HOST}/{number}/file_downloaded",),
                md5=md5,
                unpacking="unzip",
                into="NMNIST",
            )
            for name, number, md5 in (
                ("train", "39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031"),
                ("test", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832"),
            )
        ),
    ),
    "dvs-cifar10": DatasetRecord(
        title="DVS-CIFAR10, CIFAR-10 before an event camera",
        shape="Tx2x64x64",
        sizes={"train": 9_000, "test": 1_000},
        licence="CC-BY-4.0",
        reference="Li et al. 2017, doi:10.3389/fnins.2017.00309",
        home="DVSCIFAR10",
        expected=tuple(name for name, _, _ in _DVS_CIFAR10),
        files=tuple(
            RemoteFile(
                name=f"{name}.zip",
                mirrors=(f"https://ndownloader.figshare.com/files/{number}",),
                md5=md5,
                unpacking="unzip",
                into="DVSCIFAR10",
            )
            for name, number, md5 in _DVS_CIFAR10
        ),
    ),
    "fashion-mini": DatasetRecord(
        title="Part of Fashion-MNIST, inside the package",
        shape="1x28x28",
        sizes={"train": 10_000, "test": 2_000},
        licence="MIT",
        reference="Xiao et al. 2017, arXiv 1708.07747",
    ),
    "fashion-mini-events": DatasetRecord(
        title="Simulated saccades over fashion-mini",
        shape="Tx2x32x32",
        sizes={"train": 10_000, "test": 2_000},
        licence="MIT",
        reference="simulated; motion of Orchard et al. 2015",
    ),
}


def missing_parts(name: str, root_folder: Path) -> list[Path]:
    """Return what of a dataset is not under the data root; empty if it is complete or inside the package."""
    record = CATALOG[name]
    if not record.home:
        return []
    home = root_folder / record.home
    wanted = [home / part for part in record.expected] or [home]
    return [path for path in wanted if not _has_content(path) and not _has_content(path.with_name(f"{path.name}.gz"))]


def _has_content(path: Path) -> bool:
    """Return whether a file has bytes, or a folder an entry."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def describe_datasets(root: Path | None = None) -> list[str]:
    """Return a table of all datasets: name, shape of a sample, samples per split, and whether it is here."""
    folder, lines = data_root(root), [f"{'name':<20}{'sample':<12}{'samples':<42}{'here':<9}dataset"]
    for name, record in sorted(CATALOG.items()):
        sizes = ", ".join(f"{split} {n:,}" for split, n in record.sizes.items())
        here = "yes" if not missing_parts(name, folder) else "no"
        lines.append(f"{name:<20}{record.shape:<12}{sizes:<42}{here if record.home else 'included':<9}{record.title}")
    own = "image-folder:PATH, npz:PATH, hf:NAME"
    return [*lines, f"your own data: {own}", f"data root: {folder}"]
