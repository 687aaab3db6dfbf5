"""Build the embedded data set fashion-mini from Debian's package dataset-fashion-mnist.

Takes the first 1,000 training and 200 test images of each class in file order and writes them as idx.gz files, with
their origin (SOURCE.json) and licence, into the package data of tcvq-data. Needs numpy only:

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb SCRATCH
    python tools/build_fashion_mini.py --source SCRATCH [--check]
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCRIPT_VERSION = 1
PACKAGE = "dataset-fashion-mnist"
VERSION = "0.0~git20200523.55506a9-1"
TARGET = Path(__file__).parents[1] / "packages/tcvq-data/src/tcvq_data/embedded/fashion_mini"
PER_CLASS = {"train": (6000, 1000), "t10k": (1000, 200)}  # images of each class: in the source, in the subset
SHA256 = {  # of the uncompressed payloads: source, subset
    "train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "d33512cfdc636a0d8972818e6659995be209a88891df7fa2109d7895922c8985",
    ),
    "train-labels-idx1-ubyte": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "620cb8e3b9348037c5ff9a07b02d773ab165330e072dfd19e0d21c59f8042dcf",
    ),
    "t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1",
    ),
    "t10k-labels-idx1-ubyte": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c",
    ),
}


class BuildError(Exception):
    """The source is missing or is not the expected one."""


def package_files(source: Path | None) -> dict[str, Path]:
    """Return the files of the Debian package by name, from ``source`` or from the installed package.

    Raises:
        BuildError: There is neither.
    """
    if source is not None:
        paths = sorted(source.rglob("*"))
    else:
        try:
            listing = subprocess.run(["dpkg", "-L", PACKAGE], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            raise BuildError(f"{PACKAGE} is not installed: install it, or unpack it and give --source DIR") from None
        paths = [Path(line) for line in listing.splitlines()]
    return {path.name: path for path in paths if path.is_file()}


def find(files: dict[str, Path], name: str) -> Path:
    """Return the path of one file of the package, or raise `BuildError`."""
    if name not in files:
        raise BuildError(f"{name} not found: is this the unpacked Debian package {PACKAGE} {VERSION}?")
    return files[name]


def checked(name: str, payload: bytes, *, column: int) -> bytes:
    """Return ``payload`` if its hash stands in the table, else raise `BuildError`."""
    digest, expected = hashlib.sha256(payload).hexdigest(), SHA256[name][column]
    if digest != expected:
        raise BuildError(f"{('source', 'subset')[column]} {name}: payload SHA-256 {digest}, expected {expected}")
    return payload


def read_idx(payload: bytes, magic: int) -> NDArray[np.uint8]:
    """Return the array of an idx payload whose magic number is ``magic``, or raise `BuildError`."""
    if int.from_bytes(payload[:4], "big") != magic:
        raise BuildError(f"magic number 0x{payload[:4].hex()}, expected 0x{magic:08x}")
    start = 4 + 4 * payload[3]
    return np.frombuffer(payload, np.uint8, offset=start).reshape(np.frombuffer(payload[4:start], ">u4").astype(int))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return ``array`` as an idx payload."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def first_of_each_class(labels: NDArray[np.uint8], *, available: int, wanted: int) -> NDArray[np.int64]:
    """Return the sorted positions of the first ``wanted`` items of each class, or raise `BuildError`."""
    counts = np.bincount(labels)
    if counts.tolist() != [available] * 10:
        raise BuildError(f"images per class {counts.tolist()}, expected {available} of each of ten")
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:wanted] for k in range(10)]))


def build_payloads(files: dict[str, Path]) -> dict[str, bytes]:
    """Return the uncompressed subset files by name, all hashes checked."""
    subset = {}
    for split, (available, wanted) in PER_CLASS.items():
        names = (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
        source = [checked(n, gzip.decompress(find(files, f"{n}.gz").read_bytes()), column=0) for n in names]
        images, labels = read_idx(source[0], 0x803), read_idx(source[1], 0x801)
        keep = first_of_each_class(labels, available=available, wanted=wanted)
        for name, array in zip(names, (images, labels), strict=True):
            subset[name] = checked(name, idx_bytes(array[keep]), column=1)
    return subset


def compress(payload: bytes) -> bytes:
    """Return gzip data with neither name nor time stamp in the header."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(payload)
    return buffer.getvalue()


def source_record() -> dict[str, object]:
    """Return what SOURCE.json says."""
    return {
        "debian_package": PACKAGE,
        "debian_version": VERSION,
        "homepage": "https://github.com/zalandoresearch/fashion-mnist",
        "license": "Expat (MIT), copyright 2017 Zalando SE; full text in LICENSE.fashion-mnist",
        "rule": "the first 1,000 train and 200 t10k images of each class in file order, positions sorted",
        "script": Path(__file__).name,
        "script_version": SCRIPT_VERSION,
        "payload_sha256": {name: {"source": a, "subset": b} for name, (a, b) in SHA256.items()},
    }


def check(payloads: dict[str, bytes]) -> None:
    """Raise `BuildError` unless the committed files hold these payloads and the same record."""
    for name, payload in payloads.items():
        if gzip.decompress((TARGET / f"{name}.gz").read_bytes()) != payload:
            raise BuildError(f"{TARGET / name}.gz differs from what the source gives: build it again")
    if json.loads((TARGET / "SOURCE.json").read_text(encoding="utf-8")) != source_record():
        raise BuildError(f"{TARGET / 'SOURCE.json'} differs from this script's record: build it again")


def write(payloads: dict[str, bytes], licence: str) -> None:
    """Write the four idx.gz files, SOURCE.json and the licence, or raise `BuildError` if that is another licence."""
    if "Zalando" not in licence:
        raise BuildError(f"the file copyright is not the one of {PACKAGE}: give --source a folder of that package only")
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, payload in payloads.items():
        (TARGET / f"{name}.gz").write_bytes(compress(payload))
    (TARGET / "SOURCE.json").write_text(json.dumps(source_record(), indent=2) + "\n", encoding="utf-8")
    (TARGET / "LICENSE.fashion-mnist").write_text(licence, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Build or check; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the embedded data set fashion-mini.")
    parser.add_argument("--source", type=Path, help="folder of the unpacked Debian package (default: dpkg -L)")
    parser.add_argument("--check", action="store_true", help="compare payloads with the committed files, write nothing")
    options = parser.parse_args(argv)
    try:
        files = package_files(options.source)
        payloads = build_payloads(files)
        if options.check:
            check(payloads)
        else:
            write(payloads, find(files, "copyright").read_text(encoding="utf-8"))
    except (BuildError, OSError) as error:
        print(f"build_fashion_mini: {error}", file=sys.stderr)
        return 2
    print(f"fashion-mini: {'checked' if options.check else 'wrote'} {len(payloads)} files in {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
