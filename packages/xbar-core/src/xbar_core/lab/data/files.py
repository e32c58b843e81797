"""Files of published data sets: where they lie, whether they are whole, how to get them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from xbar_core.errors import ConfigError
from xbar_core.lab._optional import optional

Report = Callable[[str], None]
_TIMEOUT = 20.0  # seconds without an answer before a download is given up
_LONGEST_REASON = 150  # network libraries nest their messages; longer ones are named by type only


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: the argument, else ``$XBAR_DATA``, else ``./data``.

    Raises
    ------
    ConfigError
        A folder was named, and it is not there.
    """
    named = folder if folder is not None else os.environ.get("XBAR_DATA")
    path = Path(named or "data").expanduser()
    if named and not path.is_dir():
        source = "data" if folder is not None else "XBAR_DATA"
        raise ConfigError(f"{source}: {path} is not a folder; name the folder that holds the data sets")
    return path


def md5_of(content: bytes) -> str:
    """Return the hexadecimal md5 of a file's content (a guard against damage, not against attack)."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def read(path: Path) -> bytes:
    """Return a file's content, or raise a `ConfigError` that names the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def read_verified(path: Path, md5: str) -> bytes:
    """Return a file's content after comparing its md5 with the published one.

    Raises
    ------
    ConfigError
        The file cannot be read, or its content is not the published one.
    """
    content = read(path)
    check_md5(path, content, md5)
    return content


def check_md5(path: Path | str, content: bytes, md5: str) -> None:
    """Raise unless `content` has the published md5; `path` is for the text."""
    found = md5_of(content)
    if found != md5:
        raise ConfigError(
            f"{path}: wrong checksum (md5 {found}, published {md5}, {len(content)} bytes); the file is "
            "damaged or incomplete: delete it and download it again"
        )


class MissingDataError(ConfigError):
    """Files of a data set are not there, and were not to be downloaded."""


def missing_text(title: str, folder: Path, files: Iterable[str]) -> str:
    """Say which files of a data set are missing and where they belong."""
    return f"data: {title} is not there; put {', '.join(files)} into {folder} (or name another data folder)"


def silent(text: str) -> None:
    """Tell nobody."""


def download(missing: str, url: str, md5: str, folder: Path, report: Report = silent) -> Path:
    """Download one file of a data set into `folder`, verified and atomically, with pooch.

    Parameters
    ----------
    missing : str
        What `missing_text` says of the data set; begins the text of every error.
    url, md5 : str
        Address of the file and its published checksum.
    folder : Path
        Where it goes; it is made if need be.
    report : callable
        Told what is being downloaded, for it may take minutes.

    Raises
    ------
    ConfigError
        There is no pooch, no network, no such address, no space, or the content is not the
        published one.
    """
    pooch = optional("pooch", "pooch", missing)
    logger = pooch.get_logger()
    level = logger.level
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    report(f"downloading {url} into {folder}")
    logger.setLevel("ERROR")  # pooch tells the same on its own, in several lines
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=url.rpartition("/")[2],
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT),
        )
    # OSError covers requests' exceptions as well as disks; pooch reports a wrong hash as ValueError.
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            for path in made:  # leaves no empty folder of its own behind; fails where there are files
                path.rmdir()
        text = " ".join(str(error).split())
        reason = text if text and len(text) <= _LONGEST_REASON else type(error).__name__
        raise ConfigError(f"{missing}; the download from {url} failed ({reason})") from error
    finally:
        logger.setLevel(level)
    return Path(path)
