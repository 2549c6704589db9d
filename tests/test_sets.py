import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from srcnn.data import sets
from srcnn.data.sets import SETS, ImageSet, find_images
from srcnn.errors import UserError


@pytest.fixture
def content(images: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(images.iterdir())[:3]}


@pytest.fixture
def server(content: dict[str, bytes]) -> Iterator[str]:
    """Serves the files below /good, halves of them below /cut, other bytes below /wrong, 503 below /busy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, name = self.path.split("/")
            if kind == "busy" or name not in content:
                self.send_error(503 if kind == "busy" else 404)
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
def declare(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    """Declares the set "tiny", to be fetched from some addresses."""

    def declare(*urls: str) -> None:
        files = {name: hashlib.sha256(body).hexdigest() for name, body in content.items()}
        monkeypatch.setitem(SETS, "tiny", ImageSet("tiny", ("tiny",), files, urls))
        monkeypatch.setattr(sets.pooch, "HTTPDownloader", lambda timeout: pooch_downloader(timeout=2))

    pooch_downloader = sets.pooch.HTTPDownloader
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)  # between tries
    return declare


def test_download(server: str, declare, content: dict[str, bytes], tmp_path: Path, capsys) -> None:
    declare(f"{server}/good")
    paths = find_images("tiny", tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == content
    assert "downloading tiny" in capsys.readouterr().err
    declare("http://127.0.0.1:9/gone")
    assert find_images("tiny", tmp_path) == paths  # once


def test_the_next_address_is_tried(server: str, declare, content: dict[str, bytes], tmp_path: Path) -> None:
    declare(f"{server}/busy", f"{server}/wrong", f"{server}/good")
    assert [path.read_bytes() for path in find_images("tiny", tmp_path)] == list(content.values())


@pytest.mark.parametrize("kind", ["cut", "wrong", "busy", "absent"])
def test_a_bad_download_leaves_nothing(kind: str, server: str, declare, tmp_path: Path) -> None:
    declare("http://127.0.0.1:9" if kind == "absent" else f"{server}/{kind}")
    with pytest.raises(UserError) as error:
        find_images("tiny", tmp_path / "data")
    assert f"put its images into {tmp_path / 'data' / 'tiny'}" in str(error.value)
    assert "data=leaves" in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


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
