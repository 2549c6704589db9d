import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import DATA, needs

from srcnn.data import sets
from srcnn.data.sets import SETS, ImageSet, find_images
from srcnn.errors import UserError


@pytest.fixture(scope="module")
def content(images: Path) -> dict[str, bytes]:
    """Three images, and a zip archive with them in a folder, beside other things."""
    files = {path.name: path.read_bytes() for path in sorted(images.iterdir())[:3]}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, body in files.items():
            file.writestr(f"some/folder/{name}", body)
        file.writestr("some/read.me", b"text")
    return files | {"tiny.zip": archive.getvalue()}


@pytest.fixture(scope="module")
def server(content: dict[str, bytes]) -> Iterator[str]:
    """Serves the files below /good, halves of them below /cut, other bytes below /wrong, 503 below /busy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, name = self.path.split("/")
            if kind == "busy":
                self.send_error(503)
                return
            body = content[name] if kind != "wrong" else content[name][::-1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def declare(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares the set "tiny", to be fetched from some addresses or as an archive."""

    def declare(*urls: str) -> None:
        sums = {name: hashlib.sha256(body).hexdigest() for name, body in content.items() if name.endswith(".png")}
        archive = urls[0] if urls[0].endswith(".zip") else None
        monkeypatch.setitem(SETS, "tiny", ImageSet(["tiny/HR"], urls, archive))
        monkeypatch.setattr(sets, "_sums", lambda _: {} if archive else sums)

    return declare


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_download(server: str, declare, content: dict[str, bytes], tmp_path: Path) -> None:
    """From the next address where one fails; once; and only what is missing."""
    declare(f"{server}/busy", f"{server}/wrong", f"{server}/good")
    (tmp_path / "tiny" / "HR").mkdir(parents=True)
    (tmp_path / "tiny" / "HR" / "image0.png").write_bytes(content["image0.png"])
    paths = find_images("tiny", tmp_path)
    assert contents(tmp_path / "tiny" / "HR") == {name: content[name] for name in content if name != "tiny.zip"}
    declare("http://127.0.0.1:9/gone")
    assert find_images("tiny", tmp_path) == paths
    paths[1].write_bytes(b"other")
    with pytest.raises(UserError, match=f"{paths[1].name} is damaged or another image"):
        find_images("tiny", tmp_path)


def test_an_archive(server: str, declare, content: dict[str, bytes], tmp_path: Path) -> None:
    """Two processes at once, as of a training on two GPUs; what a killed one left does not hinder them."""
    declare(f"{server}/good/tiny.zip")
    (tmp_path / "tiny" / ".HR.part").mkdir(parents=True)
    (tmp_path / "tiny" / ".HR.part" / "image1.png").write_bytes(b"half of it")
    processes = [get_context("fork").Process(target=find_images, args=("tiny", tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    declare("http://127.0.0.1:9/tiny.zip")
    assert [path.name for path in find_images("tiny", tmp_path)] == ["image0.png", "image1.png", "image2.png"]
    assert contents(tmp_path / "tiny" / "HR") == {name: content[name] for name in content if name != "tiny.zip"}
    assert {path.name for path in (tmp_path / "tiny").iterdir()} <= {"HR", ".HR.lock"}


@pytest.mark.parametrize("kind", ["cut", "wrong", "busy", "absent"])
@pytest.mark.parametrize("archive", [False, True])
def test_a_bad_download_leaves_no_file(archive: bool, kind: str, server: str, declare, tmp_path: Path) -> None:
    address = "http://127.0.0.1:9" if kind == "absent" else f"{server}/{kind}"
    declare(f"{address}/tiny.zip" if archive else address)
    with pytest.raises(UserError, match=r"tiny could not be downloaded \(") as error:
        find_images("tiny", tmp_path)
    message = str(error.value)
    assert all(word in message for word in (f"{tmp_path}/tiny/HR", "SRCNN_DATA", "data=leaves", "data.test=[photos]"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_folders(images: Path, tmp_path: Path) -> None:
    assert len(find_images(str(images), tmp_path)) == 8
    (tmp_path / "B100").symlink_to(images)  # another name of BSD100, and files under names of their own
    assert len(find_images("BSD100", tmp_path)) == 8
    assert [path.name for path in find_images("photos", "nowhere")] == list(sets.PHOTOS)  # need no download
    with pytest.raises(UserError, match="no image set or folder 'nowhere'"):
        find_images("nowhere", tmp_path)
    with pytest.raises(UserError, match="no image files in"):
        find_images(str(tmp_path), tmp_path)


@needs("Set14")
def test_set14_is_known_by_its_hashes(tmp_path: Path) -> None:
    assert len(find_images("Set14", DATA)) == 14
    (tmp_path / "Set14").mkdir()
    (tmp_path / "Set14" / "baboon.bmp").write_bytes(b"<html>please log in</html>")
    with pytest.raises(UserError, match=r"baboon\.bmp is damaged or another image"):
        find_images("Set14", tmp_path)
