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


def fetch(url: str, path: Path, timeout: float = 30, pause: float = 2) -> None:
    """Download a file to `path`, with progress; what is there of it already is not fetched again.

    A broken connection is taken up again as long as that brings any more of it; else OSError.
    """
    while True:
        before = path.stat().st_size if path.exists() else 0
        try:
            return _fetch(url, path, before, timeout)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if not path.exists() or path.stat().st_size <= before:
                raise
            time.sleep(pause)


def _fetch(url: str, path: Path, before: int, timeout: float) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={before}-"} if before else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        if before and answer.status_code == 416:
            return  # nothing is left of it
        answer.raise_for_status()
        resumed = answer.status_code == 206  # else all of it, from the beginning
        length = answer.headers.get("Content-Length")
        initial = before if resumed else 0
        bar = tqdm(
            desc=f"downloading {url.rsplit('/', 1)[-1]}",
            total=initial + int(length) if length else None,
            initial=initial,
            unit="B",
            unit_scale=True,
        )
        with bar, open(path, "ab" if resumed else "wb") as file:
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
    cause = getattr(error.args[0], "reason", error) if error.args else error  # urllib3's within requests'
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(cause, NameResolutionError):
        return "no network: the name could not be resolved"
    if isinstance(error, requests.Timeout):
        return "the server did not answer"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused or was not reached"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    if isinstance(error, requests.ConnectionError):
        return "the server could not be reached"
    if isinstance(error, ValueError) and "hash" in str(error):  # pooch's words
        return "what came is another file, by its sha256"
    if isinstance(error, zipfile.BadZipFile):
        return "what came is no zip archive, or a damaged one"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100]
