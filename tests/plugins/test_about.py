"""What is read out of a library's file, against what binutils say of it; and what is said of other files."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gn_deploy.errors import InputError
from gn_deploy.plugin import elf
from gn_deploy.plugin.about import about, found
from gn_deploy.plugin.location import ENVIRONMENT, sources_digest
from tests.plugins.adapter import recording_library
from tests.plugins.compiled import compiled


@pytest.fixture(scope="module")
def library() -> Path:
    return recording_library()


def told(*command: object) -> list[str]:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not on PATH")
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout.splitlines()


def test_linked_libraries_and_exports_are_those_of_binutils(library) -> None:
    read = elf.read(library.read_bytes())
    needed = [line.split()[1] for line in told("objdump", "-p", library) if line.strip().startswith("NEEDED")]
    assert list(read.needed) == needed
    assert needed
    symbols = [line.split()[-1] for line in told("nm", "-D", "--defined-only", library)]
    assert list(read.exports) == sorted(symbols)
    assert "getCreators" in symbols
    assert (read.machine_code, read.ptx) == ((), ())


def test_a_library_says_what_it_is(library) -> None:
    here = about(library)
    assert (here.version, here.sources, here.headers) == ("unknown", "unknown", "own declarations")
    assert here.built_for == "no GPU"
    assert not here.outdated  # whoever compiled it did not tell from what
    assert sources_digest() != "unknown"


def test_a_damaged_library_is_refused_wherever_it_ends(library) -> None:
    whole = library.read_bytes()
    for end in (0, 3, 60, 1000, len(whole) // 2, len(whole) - 100):
        with pytest.raises(InputError, match=r"not a shared library|cut off or damaged"):
            elf.read(whole[:end])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a shared library of 64-bit Linux"), (b"\x7fELF\x01\x01" + bytes(100), "is not a shared library")],
)
def test_other_files_are_refused(content, message, tmp_path) -> None:
    path = tmp_path / "some.so"
    with pytest.raises(InputError, match=f"no such file: '{path}'"):
        about(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        about(path)


def test_a_library_of_somebody_else_is_refused(tmp_path) -> None:
    other = compiled("libother", ['extern "C" int getCreators() { return 0; }'], "-shared", "-fPIC")
    with pytest.raises(InputError, match="is not gn_deploy's plugin library: it does not export setLoggerFinder"):
        about(other)


def test_doctor_is_told_what_is_wrong_and_goes_on(library, tmp_path, monkeypatch) -> None:
    (tmp_path / "empty.so").touch()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "empty.so"))
    assert found().about is None
    assert "is not a shared library" in found().told
    monkeypatch.setenv(ENVIRONMENT, str(library))
    assert found().about == about(library)
    assert found().told == "built for no GPU"
