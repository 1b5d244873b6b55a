"""Pages: copy-on-write content agrees with a plain bytearray, and a copy is independent."""

from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.lab.pages import Pages

SIZE = 5 * 4096 + 100
places = st.tuples(st.integers(0, SIZE + 5000), st.integers(1, 9000))
steps = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "truncate", "copy"]), places, st.binary(min_size=1, max_size=9))
)


@given(steps)
def test_pages_agree_with_a_bytearray(changes):
    base = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)
    pages, model = Pages(base), bytearray(base)
    copies = []
    for kind, (offset, length), pattern in changes:
        if kind in ("write", "zero"):
            data = (pattern * length)[:length] if kind == "write" else bytes(length)
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
            if kind == "write":
                pages.write(offset, data)
            else:
                pages.zero(offset, length)
        elif kind == "truncate":
            model = model[:offset] + bytes(max(0, offset - len(model)))
            pages.truncate(offset)
        else:
            copies.append((pages.copy(), bytes(model)))
    for found, expected in [*copies, (pages, bytes(model))]:
        assert found.size == len(expected)
        assert found.read(0, len(expected) + 10) == expected + bytes(10)


def test_a_file_round_trips(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000) + b"end")
    pages = Pages.of_file(path)
    pages.write(4000, b"x" * 300)
    pages.to_file(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(4000) + b"x" * 300 + bytes(5700) + b"end"
    assert path.read_bytes() == bytes(10_000) + b"end"
