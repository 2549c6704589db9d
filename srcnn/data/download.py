"""Files from the network: a cut download is resumed, and only what is whole gets the name that is looked for."""

import shutil
import time
import zipfile
from pathlib import Path

import requests
from filelock import FileLock
from tqdm import tqdm
from urllib3.exceptions import NameResolutionError

from srcnn.files import is_image_name

_REASONS: dict[type[Exception], str] = {
    requests.Timeout: "the server did not answer",
    requests.exceptions.ProxyError: "the proxy refused or was not reached",
    requests.exceptions.SSLError: "the server's certificate is not trusted",
    requests.exceptions.ChunkedEncodingError: "the connection broke",
    requests.ConnectionError: "the server could not be reached",  # after those that are of its kind
    zipfile.BadZipFile: "what came is no zip archive, or a damaged one",
}


def fetch(url: str, path: Path) -> None:
    """Download a file to `path`, with progress; what is there of it already is not fetched again.

    A broken connection is taken up again as long as that brings any more of it; else OSError.
    """
    while True:
        before = path.stat().st_size if path.exists() else 0
        try:
            return _fetch(url, path, before)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if not path.exists() or path.stat().st_size <= before:
                raise
            time.sleep(2)


def _fetch(url: str, path: Path, before: int) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={before}-"} if before else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if before and answer.status_code == 416:
            return  # nothing is left of it
        answer.raise_for_status()
        start = before if answer.status_code == 206 else 0  # else it sends all of it
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(None, f"downloading {url.rsplit('/', 1)[-1]}", total, initial=start, unit="B", unit_scale=True)
        with bar, open(path, "ab" if start else "wb") as file:
            for block in answer.iter_content(1 << 13):
                file.write(block)
                bar.update(len(block))


def fetch_images(url: str, folder: Path) -> None:
    """Make `folder` of the images in a zip archive, whole or not at all; beside it, what was downloaded when cut.

    OSError, or BadZipFile, and the archive is gone.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive, unpacked, lock = (folder.with_name(f".{folder.name}.{kind}") for kind in ("zip", "part", "lock"))
    try:
        with FileLock(lock):
            if not folder.is_dir():  # unless another process was first
                fetch(url, archive)
                try:
                    _unpack(archive, unpacked)
                except zipfile.BadZipFile:
                    archive.unlink()
                    raise
                unpacked.rename(folder)
                archive.unlink()
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        if not archive.exists():
            lock.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    with zipfile.ZipFile(archive) as content:
        members = [member for member in content.infolist() if is_image_name(Path(member.filename))]
        if not members:
            raise zipfile.BadZipFile("there are no images in it")
        for member in tqdm(members, desc=f"unpacking into {archive.parent}", unit="file"):
            member.filename = Path(member.filename).name  # in whatever folder it lies
            content.extract(member, folder)  # its CRC is checked


def reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if error.args and isinstance(getattr(error.args[0], "reason", None), NameResolutionError):  # urllib3's within it
        return "no network: the name could not be resolved"
    if isinstance(error, ValueError) and "hash" in str(error):  # pooch's words
        return "what came is another file, by its sha256"
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:100]
