"""Output files: complete or as before, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from momos_rs.runtime.atomic_file import check_target, replacing


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestSuccess:
    def test_a_new_file_appears_only_when_complete(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        with replacing(target, overwrite=False) as file:
            file.write(b"half")
            file.flush()
            assert not target.exists()
            file.write(b" done")
        assert target.read_bytes() == b"half done"
        assert names(tmp_path) == ["out"]

    def test_an_existing_file_is_replaced_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.write_bytes(b"old")
        with replacing(target, overwrite=True) as file:
            file.write(b"new")
            file.flush()
            assert target.read_bytes() == b"old"
        assert target.read_bytes() == b"new"
        assert names(tmp_path) == ["out"]

    def test_a_reader_keeps_the_old_contents(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.write_bytes(b"old")
        with target.open("rb") as reader:
            with replacing(target, overwrite=True) as file:
                file.write(b"new")
            assert reader.read() == b"old"

    def test_the_file_can_be_read_back_and_sought(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "out", overwrite=False) as file:
            file.write(b"0123")
            file.seek(1)
            assert file.read(2) == b"12"

    def test_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with replacing(Path("out"), overwrite=False) as file:
            file.write(b"x")
        assert (tmp_path / "out").read_bytes() == b"x"

    @pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
    def test_the_longest_names(self, tmp_path: Path, name: str) -> None:
        with replacing(tmp_path / name, overwrite=False) as file:
            file.write(b"x")
        assert names(tmp_path) == [name]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
class TestPermissions:
    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_a_new_file_follows_the_umask(self, tmp_path: Path, umask: int) -> None:
        code = (
            "import os, sys; from pathlib import Path\n"
            "from momos_rs.runtime.atomic_file import replacing\n"
            f"os.umask({umask})\n"
            "with replacing(Path(sys.argv[1]), overwrite=False) as file: file.write(b'x')"
        )
        target = tmp_path / "out"
        subprocess.run([sys.executable, "-c", code, str(target)], check=True)
        assert mode(target) == 0o666 & ~umask

    def test_the_umask_is_not_touched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(mask: int) -> int:
            raise AssertionError("other threads would see the change")

        monkeypatch.setattr(os, "umask", forbidden)
        with replacing(tmp_path / "out", overwrite=False) as file:
            file.write(b"x")
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o755])
    def test_a_replaced_file_keeps_its_bits(self, tmp_path: Path, bits: int) -> None:
        target = tmp_path / "out"
        target.write_bytes(b"old")
        target.chmod(bits)
        with replacing(target, overwrite=True) as file:
            [partial] = tmp_path.glob(".*.partial")
            assert mode(partial) == 0o600
            file.write(b"new")
        assert mode(target) == bits


class TestFailure:
    @pytest.mark.parametrize(
        "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "x")]
    )
    def test_nothing_is_left_or_changed(self, tmp_path: Path, error: BaseException) -> None:
        target = tmp_path / "out"
        target.write_bytes(b"old")
        with pytest.raises(type(error)), replacing(target, overwrite=True) as file:  # noqa: PT012
            file.write(b"new" * 10_000)
            raise error
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("function", ["fsync", "link"])
    def test_a_full_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, function, full)
        if function == "link":  # as on a file system without hard links, and then full
            monkeypatch.setattr(Path, "replace", full)
        with (
            pytest.raises(OSError, match="No space left"),
            replacing(tmp_path / "out", overwrite=False) as file,
        ):
            file.write(b"x")
        assert names(tmp_path) == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_disk_that_fills_while_writing(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        with (  # noqa: PT012
            pytest.raises(OSError, match="No space left"),
            replacing(target, overwrite=False) as file,
        ):
            os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
            file.write(b"x" * 1_000_000)
        assert names(tmp_path) == []


class TestRefusal:
    def test_an_existing_file(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.write_bytes(b"old")
        with pytest.raises(FileExistsError, match="--force"):
            check_target(target, overwrite=False)
        with pytest.raises(FileExistsError, match="--force"), replacing(target, overwrite=False):
            pass
        assert target.read_bytes() == b"old"
        check_target(target, overwrite=True)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError, match="name a file"):
            check_target(tmp_path, overwrite=True)

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
            check_target(tmp_path / "nowhere" / "out", overwrite=True)

    def test_a_device(self) -> None:
        with pytest.raises(OSError, match="not a regular file"):
            check_target(Path(os.devnull), overwrite=True)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            check_target(tmp_path / "pipe", overwrite=True)

    def test_a_directory_without_permission(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
        with pytest.raises(PermissionError, match="no permission"):
            check_target(tmp_path / "out", overwrite=True)


class TestRaces:
    @pytest.mark.parametrize("hard_links", [True, False])
    def test_a_file_that_appears_meanwhile_is_not_overwritten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
    ) -> None:
        if not hard_links:
            monkeypatch.setattr(os, "link", _no_links)
        target = tmp_path / "out"
        with pytest.raises(FileExistsError), replacing(target, overwrite=False) as file:  # noqa: PT012
            file.write(b"mine")
            target.write_bytes(b"theirs")
        assert target.read_bytes() == b"theirs"
        assert names(tmp_path) == ["out"]

    def test_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", _no_links)
        with replacing(tmp_path / "out", overwrite=False) as file:
            file.write(b"x")
        assert (tmp_path / "out").read_bytes() == b"x"
        assert names(tmp_path) == ["out"]

    def test_of_many_writers_one_wins(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        barrier = threading.Barrier(8)
        won: list[int] = []

        def write(number: int) -> None:
            try:
                with replacing(target, overwrite=False) as file:
                    file.write(bytes([number]) * 1000)
                    barrier.wait()
            except FileExistsError:
                return
            won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert target.read_bytes() == bytes(won) * 1000
        assert names(tmp_path) == ["out"]


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


class TestSymbolicLinks:
    @pytest.fixture
    def link(self, tmp_path: Path) -> Path:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "file").write_bytes(b"old")
        link = tmp_path / "link"
        link.symlink_to(Path("real") / "file")
        return link

    def test_what_it_points_to_is_replaced(self, tmp_path: Path, link: Path) -> None:
        with replacing(link, overwrite=True) as file:
            file.write(b"new")
        assert link.is_symlink()
        assert (tmp_path / "real" / "file").read_bytes() == b"new"
        assert names(tmp_path) == ["link", "real"]
        assert names(tmp_path / "real") == ["file"]

    def test_it_counts_as_existing(self, tmp_path: Path, link: Path) -> None:
        (tmp_path / "real" / "file").unlink()
        with pytest.raises(FileExistsError):
            check_target(link, overwrite=False)

    def test_a_dangling_one_gets_its_target(self, tmp_path: Path, link: Path) -> None:
        (tmp_path / "real" / "file").unlink()
        with replacing(link, overwrite=True) as file:
            file.write(b"new")
        assert (tmp_path / "real" / "file").read_bytes() == b"new"
        assert link.is_symlink()
