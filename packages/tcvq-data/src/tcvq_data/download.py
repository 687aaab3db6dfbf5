"""Getting datasets: fetched from mirrors or taken from files of the user's, checked, unpacked, put into place."""

import gzip
import hashlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tcvq_data.catalog import CATALOG, DatasetRecord, RemoteFile, missing_parts
from tcvq_data.fetch import BytesProgress, fetch, is_page
from tcvq_data.files import write_bytes
from tcvq_data.interface import ArtifactError, MissingDataError
from tcvq_data.layout import data_root


def download(
    name: str, root: Path | None = None, *, source: Path | None = None, progress: BytesProgress | None = None
) -> list[Path]:
    """Put the files of a dataset into place; what is complete is left alone.

    Args:
        name: A name of the catalogue, or ``hf:NAME``.
        root: Folder of all datasets, see `tcvq_data.layout.data_root`.
        source: A published file of the dataset, a folder that holds such files (re-compressed copies of MNIST and its
            descendants too), or a folder that holds the dataset already unpacked; None downloads.
        progress: Called with file, bytes done and bytes in all.

    Returns:
        What was made, empty if nothing was missing.

    Raises:
        ValueError: The name is unknown.
        MissingDataError: The dataset cannot be downloaded by a program, or the source does not hold it; says how a
            person gets it.
        ArtifactError: A file is damaged, another one, or a page instead of data; or no mirror answers.
        OSError: The disk is full, or a file cannot be read or written.
    """
    if name.startswith("hf:") and source is None:
        from tcvq_data.images.hub import download_hub

        return [download_hub(name.removeprefix("hf:"), root)]
    if name not in CATALOG:
        own = " (data of your own stay where they are)" if ":" in name else ""
        raise ValueError(f"there is no dataset {name!r} to download{own}; names: {', '.join(sorted(CATALOG))}")
    record, folder = CATALOG[name], data_root(root)
    if not missing_parts(name, folder):
        return []
    if source is None and not all(file.mirrors for file in record.files):
        raise MissingDataError(
            f"{name}: a program cannot fetch it; {record.manual}; then run: tcvq data download {name} --from FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    made = _take(name, record, folder, source) if source is not None else _fetch(name, record, folder, progress)
    if left := missing_parts(name, folder):
        raise MissingDataError(f"{name}: {left[0]} is still missing; give the other files with --from too")
    return made


def _fetch(name: str, record: DatasetRecord, root: Path, progress: BytesProgress | None) -> list[Path]:
    """Download every file and unpack it."""
    made, scratch = [], root / ".downloads" / name
    scratch.mkdir(parents=True, exist_ok=True)
    for file in record.files:
        path = scratch / file.name
        if not path.exists():
            try:
                fetch(file.mirrors, path, md5=file.md5, progress=progress)
            except ArtifactError as error:
                by_hand = f"fetch it yourself and run: tcvq data download {name} --from FILE"
                raise ArtifactError(f"{name}: {error}; {by_hand}") from None
        made += _place(file, path, root)
    shutil.rmtree(scratch)
    return made


def _take(name: str, record: DatasetRecord, root: Path, source: Path) -> list[Path]:
    """Use files that the user has."""
    if source.is_file():
        file = next((f for f in record.files if source.name in (f.name, f.name.removesuffix(".gz"))), None)
        if file is None:
            wanted = ", ".join(f.name for f in record.files)
            raise MissingDataError(f"{name}: {source} is none of its files, which are called {wanted}")
        return _place(_checked(name, file, source), source, root)
    for home in (source / record.home, source):
        if record.expected and all((home / part).exists() for part in record.expected):
            for file in record.files:
                if file.payload_sha256 and (part := home / file.name.removesuffix(".gz")).is_file():
                    _check_payload(name, file, part, part.read_bytes())
            return [_copy_tree(home, root / record.home)]
    found = [
        (f, source / n) for f in record.files for n in (f.name, f.name.removesuffix(".gz")) if (source / n).is_file()
    ]
    if found:
        return [path for file, given in found for path in _place(_checked(name, file, given), given, root)]
    if not record.expected and record.home:
        return [_copy_tree(source, root / record.home)]
    wanted = ", ".join(f.name for f in record.files) or "nothing, it comes with the package"
    raise MissingDataError(f"{name}: {source} holds neither {wanted} nor the unpacked dataset{_hint(record)}")


def _hint(record: DatasetRecord) -> str:
    return f"; {record.manual}" if record.manual else ""


def _checked(name: str, file: RemoteFile, path: Path) -> RemoteFile:
    """Return how to place a file of the user's, after its checksum was found to be the published one."""
    with path.open("rb") as opened:
        if is_page(opened.read(512)):
            raise ArtifactError(f"{name}: {path} is a web page, not {file.name}; open it to see what it says")
    if path.name != file.name:  # uncompressed
        _check_payload(name, file, path, path.read_bytes())
        return RemoteFile(name=path.name, into=file.into)
    if file.payload_sha256:
        _check_payload(name, file, path, _gunzipped(path))
    elif file.md5 and (found := _md5(path)) != file.md5:
        raise ArtifactError(f"{name}: {path} has MD5 {found}, the published file {file.md5}; fetch it again")
    return file


def _check_payload(name: str, file: RemoteFile, path: Path, payload: bytes) -> None:
    """Raise unless the uncompressed content is the published one."""
    found = hashlib.sha256(payload).hexdigest()
    if file.payload_sha256 and found != file.payload_sha256:
        raise ArtifactError(
            f"{name}: the content of {path} has SHA-256 {found}, not {file.payload_sha256}; wrong file?"
        )


def _place(file: RemoteFile, path: Path, root: Path) -> list[Path]:
    """Unpack or copy a checked file to where its dataset is read from; nothing appears before it is whole."""
    folder = root / file.into
    folder.mkdir(parents=True, exist_ok=True)
    if file.unpacking == "gunzip":
        target = folder / file.name.removesuffix(".gz")
        write_bytes(target, _gunzipped(path))
        return [target]
    if file.unpacking == "copy":
        write_bytes(folder / file.name, path.read_bytes())
        return [folder / file.name]
    with _scratch(root) as scratch:
        try:
            _unpack(path, scratch, file.unpacking)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise ArtifactError(f"{path}: damaged, or no archive ({error}); delete it and fetch it again") from None
        return [_move(entry, folder / entry.name) for entry in sorted(scratch.iterdir())]


def _unpack(path: Path, into: Path, how: str) -> None:
    """Unpack an archive, none of whose members may be a link or lie outside of the folder."""
    if how == "untar":
        with tarfile.open(path) as tar:
            for member in tar:
                _check_member(path, member.name, is_link=not (member.isfile() or member.isdir()))
                tar.extract(member, into, filter="data")
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _check_member(path, info.filename, is_link=stat.S_ISLNK(info.external_attr >> 16))
        archive.extractall(into)


def _check_member(path: Path, member: str, *, is_link: bool) -> None:
    """Raise `ArtifactError` for a member that would leave the folder."""
    pure = PurePosixPath(member.replace("\\", "/"))
    if is_link or pure.is_absolute() or ".." in pure.parts:
        raise ArtifactError(f"{path}: refused, its member {member!r} is a link or leads out of the folder")


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of the data, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(new: Path, target: Path) -> Path:
    """Put a file or folder in its place; a folder that is there already keeps what the new one does not replace."""
    if new.is_dir() and target.is_dir():
        for entry in sorted(new.iterdir()):
            _move(entry, target / entry.name)
    else:
        new.replace(target)
    return target


def _copy_tree(source: Path, target: Path) -> Path:
    """Copy a folder, which appears only when it is whole, into what is there already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(target.parent) as scratch:
        return _move(Path(shutil.copytree(source, scratch / "copy")), target)


def _gunzipped(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{path}: damaged gzip file ({error}); fetch it again") from None


def _md5(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
