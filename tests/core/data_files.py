"""Small files in the formats of the published data sets, and a server for them."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on this machine; yields its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def picture(size: tuple[int, int] = (6, 4), mode: str = "RGB", form: str = "PNG", value: int = 9) -> bytes:
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    out = io.BytesIO()
    image_module.new(mode, size, value if mode in ("L", "I;16") else (value, 2, 3)).save(out, form)
    return out.getvalue()


def image_tree(root: Path, **options: Any) -> None:
    for part, number in (("train", 3), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for k in range(number):
                write(root / part / name / f"{k}.png", picture(value=10 * label + k, **options))
