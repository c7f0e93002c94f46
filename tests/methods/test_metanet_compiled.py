"""The compiled engine's library: what is kept of it is loaded only if it is whole and nobody else can have written it.

A script in place of the compiler hands out a library of empty functions, so that nothing takes long.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from handmade import mlp
from torch.testing import assert_close

from metaprune_cli import private
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, compiled, kernel, selfcheck

CXX = compiled.compiler()
pytestmark = pytest.mark.skipif(CXX is None, reason="there is no C++ compiler here")
STUB = """#!/bin/sh
[ "$1" = --version ] && exec echo stub
echo "$@" >> {calls}
while [ "$1" != -o ]; do shift; done
cp {library} "$2"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries by what they contain: all functions, or none of them."""
    folder, found = tmp_path_factory.mktemp("made"), {}
    assert CXX is not None
    for name, functions in (("whole", compiled.FUNCTIONS), ("foreign", ("something",))):
        source = folder / f"{name}.cpp"
        source.write_text("".join(f'extern "C" void {function}() {{}}\n' for function in functions))
        found[name] = folder / f"{name}.so"
        subprocess.run([*CXX, "-shared", "-fPIC", "-o", found[name], source], check=True)
    return found


class Stub:
    """A compiler, and the folder where what it made is kept."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.calls, self.cache, self.path = folder / "calls", folder / "cache", folder / "stub"
        self.write(STUB.format(calls=self.calls, library=library))

    def write(self, script: str) -> None:
        self.path.write_text(script)
        self.path.chmod(0o755)

    @property
    def kept(self) -> Path:
        (path,) = (self.cache / "metaprune").iterdir()
        return path

    def count(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def again(self) -> ctypes.CDLL | None:
        """As another process would."""
        compiled.library.cache_clear()
        return compiled.library("float")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: dict[str, Path]) -> Iterator[Stub]:
    found = Stub(tmp_path, made["whole"])
    monkeypatch.setenv("CXX", shlex.quote(str(found.path)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found.cache))
    compiled.library.cache_clear()
    yield found
    compiled.library.cache_clear()


def test_it_compiles_once_and_keeps_it_to_the_user(stub: Stub) -> None:
    for _ in range(2):
        assert stub.again() is not None
    assert stub.count() == 1
    assert stub.kept.name.startswith("kernel-float-")
    assert stat.S_IMODE(stub.kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(stub.kept.stat().st_mode) == 0o600


def test_a_folder_that_all_may_read_is_closed(stub: Stub) -> None:
    (stub.cache / "metaprune").mkdir(parents=True, mode=0o755)
    assert stub.again() is not None
    assert stat.S_IMODE(stub.kept.parent.stat().st_mode) == 0o700


def _with_digest(path: Path, built: bytes) -> bytes:
    return compiled._digest(path.name, built) + b"\n" + built


def _spoil(kind: str, path: Path, made: dict[str, Path]) -> None:
    whole = path.read_bytes()
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        (path.parent.parent / "elsewhere").write_bytes(whole)
        path.symlink_to(path.parent.parent / "elsewhere")
    else:
        content = {
            "empty": b"",
            "truncated": whole[: len(whole) // 2],
            "garbled": whole[:-3000] + bytes(3000),
            "a library as it is": made["foreign"].read_bytes(),
            "another's": compiled._digest("kernel-double", whole[65:]) + whole[64:],
            "no library": _with_digest(path, b"no library"),
            "without its functions": _with_digest(path, made["foreign"].read_bytes()),
            "writable": whole,
        }[kind]
        path.write_bytes(content)
        path.chmod(0o666 if kind == "writable" else 0o600)


KINDS = (
    *("empty", "truncated", "garbled", "a library as it is", "another's", "no library", "without its functions"),
    *("a pipe", "a link", "writable"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_ours_or_not_whole_is_made_anew(kind: str, stub: Stub, made: dict[str, Path]) -> None:
    stub.again()
    _spoil(kind, stub.kept, made)
    for _ in range(2):
        found = stub.again()
        assert found is not None
        found.decode()
    assert stub.count() == 2
    assert stub.kept.read_bytes() == _with_digest(stub.kept, made["whole"].read_bytes())
    assert not stub.kept.is_symlink()


def test_a_folder_in_the_place_of_the_file_stays(stub: Stub) -> None:
    stub.again()
    path = stub.kept
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="compiled anew in every process: .*Is a directory"):
        assert stub.again() is not None
    assert stub.kept.is_dir()  # and nothing beside it


def _open_to_others(stub: Stub, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stub.cache / "metaprune"
    if where == "another user's":
        monkeypatch.setattr(private.os, "geteuid", lambda: folder.stat().st_uid + 1)
    elif where == "a link's end":
        target = folder.rename(stub.cache.parent / "target")
        folder.symlink_to(target)
        target.chmod(0o777)
    else:
        (stub.cache if where == "above" else folder).chmod(0o775 if where == "the group's" else 0o777)


@pytest.mark.parametrize("where", ["another user's", "everybody's", "the group's", "above", "a link's end"])
def test_a_folder_that_others_may_write_to_is_not_used(
    where: str, stub: Stub, monkeypatch: pytest.MonkeyPatch, made: dict[str, Path]
) -> None:
    """Not even where what lies in it has the right digest."""
    stub.again()
    planted = _with_digest(stub.kept, made["whole"].read_bytes() + b"planted")
    stub.kept.write_bytes(planted)
    _open_to_others(stub, where, monkeypatch)
    loaded = []
    real = compiled._loaded
    monkeypatch.setattr(compiled, "_loaded", lambda built: loaded.append(built) or real(built))
    with pytest.warns(UserWarning, match=r"anew in every process: (others may write to|.* belongs to another)"):
        assert stub.again() is not None
    assert loaded == [made["whole"].read_bytes()]
    assert stub.kept.read_bytes() == planted


def test_links_to_a_private_folder_are_followed(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    stub.cache.symlink_to(tmp_path / "real")
    for _ in range(2):
        assert stub.again() is not None
    assert stub.count() == 1
    assert (tmp_path / "real" / "metaprune" / stub.kept.name).is_file()


@pytest.mark.parametrize(
    ("home", "said"),
    [
        (None, "there is no home folder"),
        ("/proc/none", "No such file or directory"),
        ("here", "not an absolute path"),
        ("", "not an absolute path"),
    ],
)
def test_without_a_home_it_is_compiled_for_this_process(
    home: str | None, said: str, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # does not count
    monkeypatch.chdir(tmp_path)
    if home is None:
        monkeypatch.setattr(private.Path, "home", _no_home)
    else:
        monkeypatch.setenv("HOME", home)
    before = set(tmp_path.iterdir()) | {stub.calls}
    with pytest.warns(UserWarning, match=f"compiled anew in every process: .*{said}"):
        assert stub.again() is not None
    assert set(tmp_path.iterdir()) == before


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_where_nothing_can_be_written_it_is_compiled_for_this_process(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(private.tempfile, "mkstemp", read_only)
    with pytest.warns(UserWarning, match="anew in every process: .*Read-only"):
        assert stub.again() is not None
    monkeypatch.setattr(compiled.tempfile, "TemporaryDirectory", read_only)
    with pytest.warns(UserWarning, match="without its compiled engine, several times slower: .*Read-only"):
        assert stub.again() is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo it is broken >&2; exit 1", "it is broken"),
        ("exit 0", "exit code 0, and no library"),
        ('while [ "$1" != -o ]; do shift; done; : > "$2"', "file too short|not a|invalid"),
        ('while [ "$1" != -o ]; do shift; done; cp {foreign} "$2"', "the library lacks summaries, .*decode_backward"),
    ],
)
def test_a_compiler_that_makes_no_library_is_named(script: str, said: str, stub: Stub, made: dict[str, Path]) -> None:
    stub.write("#!/bin/sh\n" + script.replace("{foreign}", str(made["foreign"])) + "\n")
    with pytest.warns(UserWarning, match=f"(?s)without its compiled engine, several times slower: .*({said})"):
        assert stub.again() is None
    assert not list((stub.cache / "metaprune").iterdir())


def test_a_compiler_that_hangs_is_ended_with_all_it_started(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiled, "LIMIT_S", 1)
    started = tmp_path / "started"
    stub.write(f'#!/bin/sh\n[ "$1" = --version ] && exit\nsleep 300 &\necho $! > {started}\nwait\n')
    begun = time.monotonic()
    with pytest.warns(UserWarning, match="stub is not done after 1 s"):
        assert stub.again() is None
    assert time.monotonic() - begun < 60
    while _runs(int(started.read_text())):  # a killed process is gone when it has been waited for
        assert time.monotonic() - begun < 60
        time.sleep(0.01)


def _runs(process: int) -> bool:
    found = Path(f"/proc/{process}/stat")
    try:
        return found.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_compiler_that_does_not_say_its_version_compiles(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "ANSWER_S", 0.2)
    stub.write(stub.path.read_text().replace("exec echo stub", "exec sleep 300"))
    assert stub.again() is not None


@pytest.mark.parametrize("name", ["with spaces", "it's", "plain"])
def test_a_compiler_may_be_called_anything(
    name: str, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(stub.path, tmp_path / name)
    monkeypatch.setenv("CXX", str(tmp_path / name))
    assert stub.again() is not None
    monkeypatch.setenv("CXX", f"env {shlex.quote(str(tmp_path / name))}")  # as `ccache g++`
    assert stub.again() is not None
    assert stub.count() == 2


def test_quotes_that_are_not_closed_are_said(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ 'x")
    with pytest.warns(
        UserWarning, match=r"CXX is not a command, so there is no C\+\+ compiler: No closing quotation: g"
    ):
        assert stub.again() is None
    assert selfcheck.verdict().startswith("no C++ compiler: PyTorch does its work, slower; CXX is not a command")


def test_several_at_once_leave_one_whole_file(stub: Stub) -> None:
    """They take turns anywhere: there is no lock, and so no stale one."""
    stub.write(stub.path.read_text().replace("cp ", "sleep 0.1; cp "))
    with ThreadPoolExecutor(4) as pool:
        found = [job.result() for job in [pool.submit(compiled.library.__wrapped__, "float") for _ in range(4)]]
    assert all(library is not None for library in found)
    assert stub.kept.is_file()
    before = stub.count()
    assert stub.again() is not None
    assert stub.count() == before


def test_a_file_that_changes_after_it_was_read_changes_nothing(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.again()
    real = compiled._loaded

    def exchanged(built: bytes) -> ctypes.CDLL:
        stub.kept.write_bytes(b"exchanged between check and load")
        return real(built)

    monkeypatch.setattr(compiled, "_loaded", exchanged)
    found = stub.again()
    assert found is not None
    found.decode()
    assert stub.count() == 1


def test_float_and_double_are_two_libraries(stub: Stub) -> None:
    one, other = compiled.library("float"), compiled.library("double")
    assert one is not None
    assert other is not None
    assert one._handle != other._handle


def test_without_a_compiler_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def outputs() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        with torch.no_grad():
            return MetaNetwork(MetaNetworkConfig(layers=2, hidden=4))(mlp())

    expected = outputs()
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled.library.cache_clear()
    assert not kernel.available(torch.zeros(1), 1)
    assert_close(outputs(), expected)
    compiled.library.cache_clear()
