"""Files are on the disk before they have their name, whatever the file system can do."""

import errno
import os

import pytest

from mtdcore._base.files import write_whole
from mtdcore.errors import StorageError


def test_the_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    done = []

    def note(name):
        call = getattr(os, name)

        def noted(*args):
            where = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[1]
            done.append((name, os.path.basename(where), os.path.exists(tmp_path / "a")))
            return call(*args)

        monkeypatch.setattr(os, name, noted)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    note("fsync")
    note("replace")
    write_whole(tmp_path / "a", lambda file: file.write(b"new"))
    beside = f".a.{os.getpid()}.part"
    assert done == [("fsync", beside, False), ("replace", "a", False), ("fsync", tmp_path.name, True)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_that_cannot_flush_folders(tmp_path, monkeypatch, number):
    """CIFS and some FUSE answer EINVAL; what went wrong on a disk is still told."""
    fsync = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if number == errno.EIO:
        with pytest.raises(StorageError, match="could not be written"):
            write_whole(tmp_path / "a", lambda file: file.write(b"new"))
    else:
        write_whole(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".a.{os.getpid()}.part").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()
