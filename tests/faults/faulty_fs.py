"""A FUSE file system that shows the folder LOWER at MOUNTPOINT and fails as the file LOWER/faults says.

Each line of that file is an operation (read, write, fsync, fallocate, open), a number of bytes and an errno name: the
operation fails where it reaches beyond so many bytes of a file. In a line of "name", characters stand for the number:
nothing is made whose name has one of them. The file may be changed at any time.
"""

import errno
import os
import sys

# Debian's name for fusepy, whose own is that of another binding.
from fusepy import FUSE, FuseOSError, Operations

FAULTS = "faults"


class Faulty(Operations):
    use_ns = True

    def __init__(self, lower):
        self.lower = lower

    def at(self, path):
        return os.path.join(self.lower, path.lstrip("/"))

    def faults(self, operation):
        try:
            with open(self.at(FAULTS)) as faults:
                lines = faults.read().split("\n")
        except FileNotFoundError:
            return
        for line in filter(None, lines):
            name, limit, error = line.split()
            if name == operation:
                yield limit, FuseOSError(getattr(errno, error))

    def fail(self, operation, end):
        for limit, error in self.faults(operation):
            if end > int(limit):
                raise error

    def check_name(self, path):
        for characters, error in self.faults("name"):
            if set(characters) & set(os.path.basename(path)):
                raise error

    def __call__(self, operation, path, *args):
        try:
            return super().__call__(operation, path, *args)
        except FuseOSError:
            raise
        except OSError as error:
            raise FuseOSError(error.errno)

    def getattr(self, path, fh=None):
        stat = os.lstat(self.at(path))
        keys = ("st_mode", "st_nlink", "st_size", "st_blocks", "st_uid", "st_gid", "st_ino")
        times = {name: getattr(stat, name + "_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {**{key: getattr(stat, key) for key in keys}, **times}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.at(path))]

    def statfs(self, path):
        stat = os.statvfs(self.at(path))
        keys = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_files", "f_ffree", "f_namemax")
        return {key: getattr(stat, key) for key in keys}

    def open(self, path, flags):
        self.fail("open", 1)
        return os.open(self.at(path), os.O_RDWR)

    def create(self, path, mode, fi=None):
        self.check_name(path)
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        self.fail("read", offset + size)
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        self.fail("write", offset + len(data))
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.at(path), length)

    def fsync(self, path, datasync, fh):
        self.fail("fsync", 1)
        os.fsync(fh)

    def release(self, path, fh):
        os.close(fh)

    def unlink(self, path):
        os.unlink(self.at(path))

    def mkdir(self, path, mode):
        self.check_name(path)
        os.mkdir(self.at(path), mode)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def rename(self, old, new):
        os.rename(self.at(old), self.at(new))

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.at(path), uid, gid)

    def utimens(self, path, times=None):
        os.utime(self.at(path), ns=times)


if __name__ == "__main__":
    lower, mountpoint = sys.argv[1:3]
    FUSE(Faulty(lower), mountpoint, foreground=True, nothreads=True, big_writes=True)
