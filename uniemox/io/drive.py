"""Locks, permissions and flushing of folders, on drives that may refuse each of them.

Network drives, FUSE file systems and memory cards lack some operations of a local disk. Each function here does what
the drive allows; files are written whole either way.
"""

import errno
import os
import shutil
import stat
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# NFS without a lock service: ENOLCK. SMB on macOS: ENOTSUP. FUSE: ENOSYS. Some drives call the operation invalid.
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# CIFS and vfat without the option uid, gcsfuse, S3, Android: EPERM.
NO_PERMISSIONS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EROFS}
# CIFS of older kernels, shared folders of virtual machines, FUSE.
NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}


class DriveWarning(UserWarning):
    """A drive lacks an operation that protects files."""


def try_lock(file: IO[Any], path: Path) -> bool:
    """Lock a file for this process.

    Args:
        file: The open file.
        path: What the lock protects, for the warning.

    Returns:
        False if the drive or the system has no locks; a drive without locks gets a warning.

    Raises:
        BlockingIOError: If another process holds the lock.
    """
    if sys.platform == "win32" or fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"the drive of {path.parent} has no file locks ({error.strerror}): run one command at a time there",
            DriveWarning,
            stacklevel=3,
        )
        return False
    return True


def set_permissions(path: Path, mode: int) -> None:
    """Set the permissions of a file; they stay as they are on a drive that does not let them change."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in NO_PERMISSIONS:
            raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a file with its time, and with its permissions where the drive lets them change."""
    shutil.copyfile(source, target)
    state = source.stat()
    with suppress(OSError):
        os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    set_permissions(target, stat.S_IMODE(state.st_mode))


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk; some drives can't flush folders."""
    is_folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        # Windows opens no folders.
        if is_folder:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not is_folder or error.errno not in NO_FLUSH:
            raise
    finally:
        os.close(handle)


def take_standard_output() -> BinaryIO:
    """Return standard output for this process's answers alone.

    What libraries print, such as messages about broken files, goes to the null device instead.
    """
    # A copy of stream 1 must not get the number of a closed stream, which is replaced below.
    open_standard_streams()
    answers = os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    return answers


def open_standard_streams() -> None:
    """Give closed standard streams the null device, as under some daemons and schedulers.

    Otherwise the next opened files get their numbers, and what is meant for a stream is written to them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle == number:
                with suppress(OSError):
                    os.set_inheritable(number, True)
            else:
                os.dup2(handle, number)
                os.close(handle)
