"""Secrets: every form of QEMU's --object secret, errors that name what is wrong, and nothing that shows a key."""

import base64
import pickle
import subprocess

import pytest

from e2kdisk.crypto.secret import Secrets
from e2kdisk.errors import UsageError


@pytest.fixture
def secrets():
    return Secrets()


def test_data_is_taken_as_it_is(secrets):
    assert secrets.parse("secret,id=s,data=ge,,heim=1").data == b"ge,heim=1"
    assert secrets["s"].password == b"ge,heim=1"


def test_a_file_is_taken_whole_with_its_last_newline(secrets, tmp_path):
    (tmp_path / "key").write_bytes(b"geheim\n")
    assert secrets.parse(f"id=s,file={tmp_path}/key").data == b"geheim\n"


def test_base64_may_be_broken_into_lines(secrets, tmp_path):
    (tmp_path / "key").write_bytes(b"Z2Vo\nZWlt\n")
    assert secrets.parse(f"id=s,format=base64,file={tmp_path}/key").data == b"geheim"
    assert secrets.parse("id=t,format=base64,data=/w==").data == b"\xff"


MASTER = bytes(range(32))
IV = bytes(range(100, 116))


def encrypted(data, padding=None):
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    missing = 16 - len(data) % 16
    context = Cipher(algorithms.AES(MASTER), modes.CBC(IV)).encryptor()
    return context.update(data + bytes([missing if padding is None else padding]) * missing)


def b64(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("data", [b"", b"geheim", b"0123456789abcdef"])
def test_a_secret_may_be_encrypted_with_another(secrets, data):
    secrets.parse(f"id=master,format=base64,data={b64(MASTER)}")
    text = f"id=s,keyid=master,iv={b64(IV)},format=base64,data={b64(encrypted(data))}"
    assert secrets.parse(text).data == data


@pytest.mark.needs("qemu-utils")
def test_qemu_takes_the_same_encrypted_secret(secrets, tmp_path):
    from tests.oracles import qemu_img

    master = f"secret,id=master,format=base64,data={b64(MASTER)}"
    sealed = f"secret,id=s,keyid=master,iv={b64(IV)},format=base64,data={b64(encrypted(b'geheim'))}"
    secrets.parse(master)
    assert secrets.parse(sealed).data == b"geheim"
    options = ("-o", "encrypt.format=aes,encrypt.key-secret=s")
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "--object", master, "--object", sealed, "-f", "qcow2", *options, image, "1M")
    opened = f"driver=qcow2,file.filename={image},encrypt.key-secret=s"
    for objects in ([master, sealed], ["secret,id=s,data=geheim"]):
        arguments = [argument for text in objects for argument in ("--object", text)]
        commands = ["-c", "write -P 1 0 512"] if len(objects) == 2 else ["-c", "read -P 1 0 512"]
        done = subprocess.run(
            ["qemu-io", *arguments, "--image-opts", opened, *commands], capture_output=True, text=True, check=True
        )
        assert "failed" not in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=x", "needs id=NAME"),
        ("id=s", "secret 's': needs either data or file"),
        ("id=s,data=hush,file=x", "secret 's': needs either data or file"),
        ("id=s,data=hush,format=hex", "secret 's': format must be raw or base64"),
        ("id=s,data=hush!,format=base64", "secret 's': data is not valid base64"),
        ("id=s,data=hush,colour=hush", "secret 's': unknown option; known are id, data, file, format, keyid, iv"),
        ("id=s,data=pre,hush", "secret: option 3 has no '='; a comma in a value is written twice"),
        ("id=s,file=/nowhere/key", "secret 's': /nowhere/key cannot be read: No such file or directory"),
        ("id=old,data=hush", "secret 'old' is given twice"),
        ("id=s,iv=AAAA,data=hush", "secret 's': iv needs keyid"),
        ("id=s,keyid=old,data=hush", "secret 's': keyid needs iv"),
        ("id=s,keyid=new,iv=AAAA,data=hush", "no secret with id 'new'; known are old, master"),
        ("id=s,keyid=old,iv=AAAA,data=hush", "secret 's': key 'old' has 4 bytes, AES-256 needs 32"),
        ("id=s,keyid=master,iv=AAAA,data=hush", "secret 's': iv has 3 bytes, AES needs 16"),
        (f"id=s,keyid=master,iv={b64(IV)},data=hush", "encrypted data of 4 bytes is no whole number of AES blocks"),
        (
            f"id=s,keyid=master,iv={b64(IV)},format=base64,data={b64(encrypted(b'hush', 17))}",
            "secret 's': does not decrypt with key 'master' and this iv",
        ),
    ],
)
def test_an_error_names_what_is_wrong_in_one_line_and_shows_no_secret(secrets, text, message):
    secrets.parse("id=old,data=hush")
    secrets.parse(f"id=master,format=base64,data={b64(MASTER)}")
    with pytest.raises(UsageError) as caught:
        secrets.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("data", ["/w==", "YWIAY2Q="])  # no UTF-8, a NUL inside: qemu-img refuses both
def test_a_password_is_text(secrets, data):
    secret = secrets.parse(f"id=s,format=base64,data={data}")
    with pytest.raises(UsageError, match="must be UTF-8 text without NUL"):
        secret.password  # noqa: B018


def test_a_huge_file_is_no_secret(secrets, tmp_path):
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="is longer than"):
        secrets.parse(f"id=s,file={tmp_path}/disk")


def test_nothing_that_is_printed_shows_a_secret(secrets):
    secret = secrets.parse("id=s,data=hush")
    assert "hush" not in f"{secret} {secret!r} {secrets} {secrets!r}"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)
