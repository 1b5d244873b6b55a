"""Legacy AES: every fast way gives what plain CBC gives, and what qemu-img writes."""

import subprocess
import sys
import threading

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.crypto import cbc
from e2kdisk.crypto.legacy import legacy_aes

KEY = bytes(range(16))


def reference(first_sector, data, *, key=KEY, decrypt=False):
    """CBC as the format says it: each 512-byte sector on its own, its number as IV."""
    result = b""
    for start in range(0, len(data), 512):
        iv = (first_sector + start // 512).to_bytes(8, "little") + bytes(8)
        cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
        context = cipher.decryptor() if decrypt else cipher.encryptor()
        result += context.update(data[start : start + 512]) + context.finalize()
    return result


def noise(length, seed=1):
    import random

    return random.Random(seed).randbytes(length)


@pytest.fixture(params=["numpy", "no numpy"], autouse=True)
def numpy(request, monkeypatch):
    if request.param == "no numpy":
        # Not numpy itself: Hypothesis seeds it wherever it is loaded.
        monkeypatch.setitem(sys.modules, "e2kdisk.crypto.cbc_bulk", None)
    else:
        pytest.importorskip("numpy")
    return request.param == "numpy"


@pytest.mark.parametrize("sectors", [1, 2, 7, 8, 63, 64, 65, 256, 257, 1031])
@pytest.mark.parametrize("first", [0, 0xFFFFFFFF, (1 << 64) - 2000])
def test_any_size_equals_cbc_sector_by_sector(sectors, first):
    cipher = legacy_aes(KEY)
    data = noise(sectors * 512)
    secret = cipher.encrypt(first, data)
    assert secret == reference(first, data)
    cipher.decrypt(first, secret)
    assert secret == data


@given(
    first=st.integers(0, 1 << 40),
    pieces=st.lists(st.one_of(st.integers(0, 9), st.integers(60, 300)), max_size=6),
    seed=st.integers(0, 99),
)
def test_any_split_gives_the_same_bytes(first, pieces, seed):
    cipher = legacy_aes(KEY)
    data = noise(sum(pieces) * 512, seed)
    whole = reference(first, data)
    start = 0
    for sectors in pieces:
        part = slice(start * 512, (start + sectors) * 512)
        # The contexts run on from request to request, both ways mixed: nothing of one may show in the next.
        assert cipher.encrypt(first + start, memoryview(data)[part]) == whole[part]
        back = bytearray(whole[part])
        cipher.decrypt(first + start, memoryview(back))
        assert back == data[part]
        start += sectors


def test_the_callers_plaintext_stays_as_it_is():
    data = bytearray(noise(1 << 16))
    before = bytes(data)
    legacy_aes(KEY).encrypt(0, data)
    legacy_aes(KEY).encrypt(0, memoryview(data)[:512])
    assert data == before


@pytest.mark.parametrize("length", [1, 511, 513, 65537])
def test_a_part_of_a_sector_is_refused(length):
    with pytest.raises(ValueError, match="no whole number of 512-byte sectors"):
        legacy_aes(KEY).encrypt(0, bytes(length))
    with pytest.raises(ValueError, match="no whole number of 512-byte sectors"):
        legacy_aes(KEY).decrypt(0, bytearray(length))


def test_a_request_that_fails_leaves_the_next_one_right(monkeypatch):
    cipher = legacy_aes(KEY)
    data = noise(1024)
    cipher.encrypt(5, data)
    with pytest.raises(TypeError):
        cipher._encrypt_chained(5, memoryview(data), "two")  # fails before a context is taken
    chain = cipher._encryptors[-1]
    chain.update_into = lambda source, target: 1 / 0
    with pytest.raises(ZeroDivisionError):
        cipher.encrypt(5, data)
    assert not cipher._encryptors
    assert cipher.encrypt(5, data) == reference(5, data)


def test_threads_may_share_one_cipher():
    cipher = legacy_aes(KEY)
    data = noise(64 * 512)
    wrong = []

    def work(first):
        for round in range(60):
            size = (1 + (first + round) % 64) * 512
            secret = cipher.encrypt(first, data[:size])
            if secret != reference(first, data[:size]):
                wrong.append((first, round))
            cipher.decrypt(first, secret)
            if secret != data[:size]:
                wrong.append((first, round))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("password", "key"),
    [(b"", bytes(16)), (b"geheim", b"geheim" + bytes(10)), (b"0123456789abcdefXYZ", b"0123456789abcdef")],
)
def test_the_key_is_the_password_padded_or_cut_to_16_bytes(password, key):
    assert legacy_aes(password).encrypt(3, bytes(512)) == reference(3, bytes(512), key=key)


def test_a_cipher_never_shows_its_key():
    assert repr(legacy_aes(b"geheim")) == "AesCbc(128 bit)"


def test_numpy_is_imported_only_when_it_pays():
    script = f"""
import sys
from e2kdisk.crypto.legacy import legacy_aes
assert "cryptography" not in sys.modules
cipher = legacy_aes(b"x")
assert "cryptography" not in sys.modules
a = cipher.encrypt(0, bytes({cbc.BULK_FROM}))
assert "numpy" not in sys.modules
cipher._encrypted = {cbc.NUMPY_AFTER}
assert cipher.encrypt(0, bytes({cbc.BULK_FROM})) == a
assert "numpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# -- qemu-img --------------------------------------------------------------------------------------


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("password", ["geheim", "pässwörter sind länger als 16", ""])
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_sectors_that_qemu_io_wrote_decrypt_and_it_reads_ours(tmp_path, make_image, password, cluster_size):
    from tests.oracles import qemu_img, run

    image = tmp_path / "disk.qcow2"
    secret = ("--object", f"secret,id=s,data={password}")
    options = f"encrypt.format=aes,encrypt.key-secret=s,cluster_size={cluster_size}"
    qemu_img("create", "-q", *secret, "-f", "qcow2", "-o", options, image, "1M")
    opened = f"driver=qcow2,file.filename={image},encrypt.key-secret=s"

    def qemu_io(*commands):
        arguments = [argument for command in commands for argument in ("-c", command)]
        done = run("qemu-io", *secret, "--image-opts", opened, *arguments)
        assert "failed" not in done.stdout, done.stdout

    guest, length = 0x21000, 0x1E000  # neither cluster-aligned nor at sector 0
    qemu_io(f"write -P 0x5a {guest} {length}")
    # Where each guest byte lies in the file, read with the fields of the format: L1 -> L2 -> cluster.
    raw = bytearray(image.read_bytes())

    def be64(offset):
        return int.from_bytes(raw[offset : offset + 8], "big") & 0x00FFFFFFFFFFFE00

    def host(offset):
        entries = cluster_size // 8
        cluster = offset // cluster_size
        l2 = be64(be64(40) + 8 * (cluster // entries))
        return be64(l2 + 8 * (cluster % entries)) + offset % cluster_size

    cipher = legacy_aes(password.encode())
    for sector in range(guest // 512, (guest + length) // 512):
        place = host(sector * 512)
        data = raw[place : place + 512]
        cipher.decrypt(sector, data)
        assert data == b"\x5a" * 512
    # And back: our ciphertext in the same places.
    ours = cipher.encrypt(guest // 512, b"\xc3" * length)
    for start in range(0, length, 512):
        place = host(guest + start)
        raw[place : place + 512] = ours[start : start + 512]
    image.write_bytes(raw)
    qemu_io(f"read -P 0xc3 {guest} {length}")
