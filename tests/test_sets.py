import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs

from srcnn.data import sets
from srcnn.data.sets import SETS, ImageSet, find_images
from srcnn.errors import UserError


@pytest.fixture
def content(images: Path) -> dict[str, bytes]:
    """Three images, and a zip archive with them in a folder, beside other things."""
    files = {path.name: path.read_bytes() for path in sorted(images.iterdir())[:3]}
    filling = np.random.default_rng(0).bytes(60_000)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, body in files.items():
            file.writestr(f"some/folder/{name}", body)
        file.writestr("some/read.me", filling)
    return files | {"tiny.zip": archive.getvalue()}


asked: list[tuple[str, int]] = []  # of the server: below what, from which byte on


@pytest.fixture
def server(content: dict[str, bytes]) -> Iterator[str]:
    """Serves the files below /good, halves of them below /cut, other bytes below /wrong, 503 below /busy.

    Below /parts from where it is asked to begin, and of much only two thirds, as a connection that breaks.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, name = self.path.split("/")
            if kind == "busy" or name not in content:
                self.send_error(503 if kind == "busy" else 404)
                return
            body = content[name] if kind != "wrong" else content[name][::-1]
            start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if kind == "parts" else 0
            asked.append((kind, start))
            if start >= len(body):
                self.send_error(416)
                return
            body = body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            share = {"cut": 1 / 2, "parts": 2 / 3 if len(body) > 20_000 else 1}.get(kind, 1)
            self.wfile.write(body[: int(len(body) * share)])

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def declare(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    """Declares the set "tiny", to be fetched from some addresses."""

    def declare(*urls: str) -> None:
        files = {name: hashlib.sha256(body).hexdigest() for name, body in content.items() if name.endswith(".png")}
        monkeypatch.setitem(SETS, "tiny", ImageSet("tiny", ("tiny",), files, urls))
        monkeypatch.setattr(sets.pooch, "HTTPDownloader", lambda timeout: pooch_downloader(timeout=2))

    pooch_downloader = sets.pooch.HTTPDownloader
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)  # between tries
    return declare


def images_of(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: body for name, body in content.items() if name.endswith(".png")}


def test_download(server: str, declare, content: dict[str, bytes], tmp_path: Path, capsys) -> None:
    declare(f"{server}/good")
    paths = find_images("tiny", tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == images_of(content)
    assert "downloading tiny" in capsys.readouterr().err
    declare("http://127.0.0.1:9/gone")
    assert find_images("tiny", tmp_path) == paths  # once


def test_the_next_address_is_tried(server: str, declare, content: dict[str, bytes], tmp_path: Path) -> None:
    declare(f"{server}/busy", f"{server}/wrong", f"{server}/good")
    assert [path.read_bytes() for path in find_images("tiny", tmp_path)] == list(images_of(content).values())


@pytest.mark.parametrize("kind", ["cut", "wrong", "busy", "absent"])
def test_a_bad_download_leaves_nothing(kind: str, server: str, declare, tmp_path: Path) -> None:
    declare("http://127.0.0.1:9" if kind == "absent" else f"{server}/{kind}")
    with pytest.raises(UserError) as error:
        find_images("tiny", tmp_path / "data")
    reasons = {"wrong": "what came is another file, by its sha256", "busy": "the server answered 503"}
    reasons |= {"cut": "the connection broke", "absent": "the server could not be reached"}
    message = str(error.value)
    assert (
        f"tiny could not be downloaded ({reasons[kind]}): put its images into {tmp_path / 'data' / 'tiny'}" in message
    )
    assert all(word in message for word in ("SRCNN_DATA", "data=leaves", "data.test=[photos]"))
    assert not list(tmp_path.iterdir())  # no empty folder either


def test_a_part_is_completed(server: str, declare, content: dict[str, bytes], tmp_path: Path) -> None:
    declare(f"{server}/good")
    first = next(iter(content))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / first).write_bytes(content[first])
    assert len(find_images("tiny", tmp_path)) == 3


def test_a_damaged_file_is_named(server: str, declare, tmp_path: Path) -> None:
    declare(f"{server}/good")
    damaged = find_images("tiny", tmp_path)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{damaged.name} is damaged"):
        find_images("tiny", tmp_path)


def test_folders(images: Path, tmp_path: Path) -> None:
    assert len(find_images(str(images), tmp_path)) == 8
    (tmp_path / "B100").symlink_to(images)  # another name of BSD100, and files under names of their own
    assert len(find_images("BSD100", tmp_path)) == 8
    with pytest.raises(UserError, match="Urban100 is not below"):
        find_images("Urban100", tmp_path)
    with pytest.raises(UserError, match="no image set or folder 'nowhere'"):
        find_images("nowhere", tmp_path)
    with pytest.raises(UserError, match="no image files in"):
        find_images(str(tmp_path), tmp_path)


def test_photos_need_no_download() -> None:
    assert [path.name for path in find_images("photos", "nowhere")] == list(sets.PHOTOS)


@pytest.fixture
def declare_archive(monkeypatch: pytest.MonkeyPatch):
    """Declares the set "tiny" as a zip archive."""
    monkeypatch.setattr("srcnn.data.download.time.sleep", lambda _: None)
    asked.clear()
    return lambda url: monkeypatch.setitem(SETS, "tiny", ImageSet("tiny", ("tiny/HR",), archive=url))


@pytest.mark.parametrize("kind", ["good", "parts"])
def test_an_archive(
    kind: str, server: str, declare_archive, content: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    declare_archive(f"{server}/{kind}/tiny.zip")
    paths = find_images("tiny", tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == images_of(content)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["HR"]
    assert "downloading tiny.zip" in capsys.readouterr().err
    starts = [start for _, start in asked]
    assert starts == sorted(set(starts)) and len(starts) >= (3 if kind == "parts" else 1)  # each time it goes on
    assert find_images("tiny", tmp_path) == paths and len(asked) == len(starts)


@pytest.mark.parametrize("kind", ["good", "parts"])
def test_a_cut_archive_is_resumed_by_the_next_run(
    kind: str, server: str, declare_archive, content: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / ".HR.zip").write_bytes(content["tiny.zip"][:1000])
    (tmp_path / "tiny" / ".HR.part").mkdir()  # of a process killed while unpacking
    declare_archive(f"{server}/{kind}/tiny.zip")  # the first does not know how to resume
    assert len(find_images("tiny", tmp_path)) == 3
    assert asked[0] == (kind, 1000 if kind == "parts" else 0)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["HR"]


def test_an_archive_that_is_there_whole_is_only_unpacked(
    server: str, declare_archive, content: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / ".HR.zip").write_bytes(content["tiny.zip"])
    declare_archive(f"{server}/parts/tiny.zip")
    assert len(find_images("tiny", tmp_path)) == 3


@pytest.mark.parametrize("kind", ["wrong", "busy", "absent", "image"])
def test_a_bad_archive_leaves_nothing(kind: str, server: str, declare_archive, tmp_path: Path) -> None:
    urls = {"absent": "http://127.0.0.1:9/tiny.zip", "image": f"{server}/good/image0.png"}
    declare_archive(urls.get(kind, f"{server}/{kind}/tiny.zip"))
    with pytest.raises(UserError, match=r"tiny could not be downloaded \((what came is no zip|the server )"):
        find_images("tiny", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_a_cut_archive_stays_for_the_next_run(server: str, declare_archive, tmp_path: Path) -> None:
    declare_archive(f"{server}/cut/tiny.zip")  # halves, always from the beginning
    with pytest.raises(UserError, match="the connection broke"):
        find_images("tiny", tmp_path)
    assert (tmp_path / "tiny" / ".HR.zip").stat().st_size > 1000
    assert not (tmp_path / "tiny" / "HR").exists()


def test_no_network(declare_archive, tmp_path: Path) -> None:
    declare_archive("http://nowhere.invalid/tiny.zip")  # RFC 2606: never a host
    with pytest.raises(UserError, match=r"\(no network: the name could not be resolved\)"):
        find_images("tiny", tmp_path / "data")
    assert not list(tmp_path.iterdir())


@needs("Set14")
def test_set14_is_known_by_its_hashes(tmp_path: Path) -> None:
    assert len(find_images("Set14", DATA)) == 14
    (tmp_path / "Set14").mkdir()
    (tmp_path / "Set14" / "baboon.bmp").write_bytes(b"<html>please log in</html>")
    with pytest.raises(UserError, match=r"baboon\.bmp is damaged or another image"):
        find_images("Set14", tmp_path)
