"""Headers of .npy files: what numpy writes is read as numpy reads it, whatever other threads do; else it is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.array_header import ArrayHeader, memory_map
from shoal.errors import RunError

DTYPES = ("<f2", "<f4", "<f8", ">f4", "|u1", "|b1", "<i8", "<c16", "<U7")


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 5), max_size=4),
    is_fortran=st.booleans(),
    version=st.sampled_from([(1, 0), (2, 0)]),
)
def test_what_numpy_writes_is_read_as_numpy_reads_it(
    dtype: str, shape: list[int], is_fortran: bool, version: tuple[int, int]
) -> None:
    written = np.zeros(shape, dtype, order="F" if is_fortran else "C")
    file = io.BytesIO()
    np.lib.format.write_array(file, written, version)
    file.seek(0)
    header = ArrayHeader.read(file)
    assert (header.dtype, header.shape) == (written.dtype, written.shape)
    assert header.is_fortran == (written.flags.fnc and not written.flags.c_contiguous)
    assert header.offset == file.tell() == len(file.getvalue()) - written.nbytes


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L), }     \n",  # Python 2
        '{"shape": (3,2), "fortran_order": False, "descr": "<f4"}',  # in another order, as other libraries may
    ],
)
def test_other_writers_are_read(text: str) -> None:
    header = ArrayHeader.read(io.BytesIO(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()))
    assert (header.dtype.str, header.shape, header.is_fortran) == ("<f4", (3, 2), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2,)}",
        "{'descr': 'nothing', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} and more",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},)}}",
        "{" * 60000,
    ],
)
def test_a_damaged_header_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="its header is damaged"):
        ArrayHeader.read(io.BytesIO(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()))


def test_maps_hold_the_values(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, array in {"c": values, "f": np.asfortranarray(values), "none": values[:0]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(memory_map(tmp_path / f"{name}.npy"), array)


def test_no_python_parser_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's, before 3.11.8 and 3.12.2, fails at random where another thread parses at the same time."""
    np.save(tmp_path / "a.npy", np.ones((2, 3)))

    def fail(*args: object, **kwargs: object) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("ast.parse", fail)
    assert memory_map(tmp_path / "a.npy").shape == (2, 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it does not begin as a .npy file"),
        (b"\x93NUMPY\x01\x00\xff", "its header is cut off"),
        (b"\x93NUMPY\x01\x00\xff\x00{", "its header is cut off"),
        (b"\x93NUMPY\x03\x00\xff\x00{", "version 3 of .npy"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "its header has 4,294,967,295 bytes"),
    ],
)
def test_what_is_no_array_is_told_with_its_file(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(RunError, match=r"a\.npy is not readable as an array: " + said):
        memory_map(tmp_path / "a.npy")


def test_values_that_are_cut_off_or_objects_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((99, 9)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "o.npy"):
        with pytest.raises(RunError, match=rf"{name} is not readable as an array"):
            memory_map(tmp_path / name)
