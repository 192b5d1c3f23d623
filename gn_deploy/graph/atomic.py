"""Files that appear complete or not at all: written under another name beside their place, then renamed."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gn_deploy.errors import InputError


@contextmanager
def atomic(*paths: Path) -> Iterator[Sequence[BinaryIO]]:
    """One binary file per path, put in place in the given order when the block ends well; all of them or none.

    1. After any failure, Ctrl-C included, each path holds what it held before and no temporary file is left.
    2. A path that is a link is replaced by the new file; what it led to is never touched.
    3. Raises InputError, with a hint, for a folder that is missing or not writable, a full disk, or a path that
       is a folder or a device.
    """
    temporary = [path.parent / f".gn_deploy-{secrets.token_hex(4)}.tmp" for path in paths]
    try:
        for path in paths:
            check_place(path)
        with ExitStack() as opened:
            files = [opened.enter_context(open(name, "xb")) for name in temporary]
            yield files
            for file, path in zip(files, paths, strict=True):
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    os.chmod(file.name, stat.S_IMODE(path.stat().st_mode))
        _rename(temporary, paths)
    except OSError as error:
        raise _cannot_write(paths[-1], error) from error
    finally:
        for name in temporary:
            with suppress(FileNotFoundError, NotADirectoryError):
                name.unlink()


def check_place(path: Path) -> None:
    """Raises InputError, with a hint, where no file can be written: so that long work need not be done to know."""
    try:
        if not path.name:
            raise InputError(f"'{path}' is a folder", f"name the file to write, for example {path / 'model.onnx'}")
        if path.is_dir():
            raise InputError(f"cannot write '{path}': it is a folder", f"name a file, such as '{path / 'model.onnx'}'")
        if path.exists() and not path.is_file():
            raise InputError(f"cannot write '{path}': it is not a regular file", "name a file in a folder")
        if path.parent.is_file():
            raise InputError(f"cannot write '{path}': '{path.parent}' is a file, not a folder", "choose another folder")
        if not path.parent.is_dir():
            raise InputError(
                f"cannot write '{path}': the folder '{path.parent}' is missing", f"mkdir -p '{path.parent}'"
            )
    except OSError as error:
        raise _cannot_write(path, error) from error


def _rename(sources: list[Path], paths: tuple[Path, ...]) -> None:
    """All or none: what stood at a path before waits under another name until the last rename is done."""
    waiting: list[tuple[Path, Path, Path | None]] = []
    try:
        for source, path in zip(sources, paths, strict=True):
            # the last rename needs no way back: once it is done, everything is
            before = source.with_suffix(".old") if os.path.lexists(path) and path is not paths[-1] else None
            waiting.append((source, path, before))
            if before is not None:
                os.replace(path, before)
            os.replace(source, path)
    except BaseException:
        if sources[-1].exists():
            for source, path, before in waiting[: len(paths) - 1]:
                if before is not None and os.path.lexists(before):
                    os.replace(before, path)
                elif before is None and not source.exists():
                    path.unlink(missing_ok=True)
        raise
    finally:
        for _, _, before in waiting:
            if before is not None:
                before.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write '{path}': {error.strerror or error}", _hint(error, path))


def _hint(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk or the quota is full: free space, or write to another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"'{path.parent}' is not writable: choose another folder"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "nothing was written"
