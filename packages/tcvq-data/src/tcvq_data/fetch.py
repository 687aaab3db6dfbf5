"""One file over HTTP: mirrors, resume, checksum, and no web page taken for data."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from tcvq_data.interface import ArtifactError

BytesProgress = Callable[[str, int, int | None], None]

ATTEMPTS = 4  # per mirror, each from where the one before was cut off
PAUSE_SECONDS = 1.0  # before the second attempt; doubled each time
TIMEOUT_SECONDS = 60.0
_BLOCK = 1 << 20


def fetch(mirrors: Sequence[str], path: Path, *, md5: str = "", progress: BytesProgress | None = None) -> None:
    """Download a file, which appears under its name only when it is whole.

    What has arrived is kept as ``path`` + ``.part`` when the connection or this process ends, and the next call goes on
    from there, if the server allows.

    Args:
        mirrors: Addresses, tried in turn.
        path: The file to make; its folder must exist.
        md5: Checksum; empty if none is known.
        progress: Called with the name, bytes done, and bytes in all or None.

    Raises:
        ArtifactError: No mirror gave the file; says what each answered.
        OSError: Writing failed.
    """
    reasons = []
    for url in mirrors:
        try:
            _from_mirror(url, path, md5, progress)
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
        else:
            return
    raise ArtifactError(f"{path.name} could not be downloaded ({'; '.join(reasons) or 'no mirror is known'})")


def is_page(head: bytes) -> bool:
    """Return whether a file that begins like this is an HTML page."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) and b"<" in start


class _MirrorError(Exception):
    """A mirror does not give the file."""


class _CutOffError(Exception):
    """A connection ended early; another attempt may go on."""


def _from_mirror(url: str, path: Path, md5: str, progress: BytesProgress | None) -> None:
    """Download from one mirror, in several attempts."""
    part, reason = path.with_name(f"{path.name}.part"), ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            _attempt(url, part, progress)
        except _CutOffError as error:
            reason = str(error)
            continue
        with part.open("rb") as opened:
            found = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 and found != md5:
            part.unlink()
            raise _MirrorError(f"it gave a file with MD5 {found} instead of {md5}")
        part.rename(path)
        return
    raise _MirrorError(f"{reason}, {ATTEMPTS} times; what arrived is kept, run again to go on")


def _attempt(url: str, part: Path, progress: BytesProgress | None) -> None:
    """Append to the part what is missing of the file."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "tcvq-data"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            _receive(answer, part, done, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:  # nothing is left to send, or the file is another one
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(done):
                    return
                part.unlink()
                raise _CutOffError("the file there has changed") from None
            if error.code >= 500 or error.code == 429:
                raise _CutOffError(f"HTTP {error.code} {error.reason}") from None
            raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _CutOffError(str(getattr(error, "reason", "") or error or type(error).__name__)) from None


def _receive(answer: http.client.HTTPResponse, part: Path, done: int, progress: BytesProgress | None) -> None:
    """Write an answer to disk."""
    resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
    if answer.status == 206 and not resumed:
        part.unlink()
        raise _CutOffError("the server resumed at another place")
    done = done if resumed else 0
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length and length.isdigit() else None
    name = part.name.removesuffix(".part")
    with part.open("ab" if resumed else "wb") as file:
        while block := answer.read1(_BLOCK):
            if done == 0 and (is_page(block[:512]) or answer.headers.get_content_type() == "text/html"):
                file.close()
                part.unlink()
                raise _MirrorError("it gave a web page instead of the file, perhaps a quota or a login")
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(name, done, total)
    if total is not None and done < total:
        raise _CutOffError(f"the connection ended after {done} of {total} bytes")
    if done == 0:
        part.unlink()
        raise _MirrorError("it gave an empty file")
