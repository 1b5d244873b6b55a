"""Secrets: passwords and keys as QEMU's "--object secret" takes them; never printed, never in an error.

id=s,data=geheim                                  the bytes themselves
id=s,file=password.txt,format=base64              from a file; raw: every byte counts, a last newline too
id=s,keyid=master,iv=...,format=base64,data=...   AES-256-CBC with another secret as key
"""

from __future__ import annotations

from collections.abc import Mapping

from e2kdisk.errors import UsageError

MAX_FILE_BYTES = 1 << 20
"""A secret that is longer is the wrong file."""

_KNOWN = ("id", "data", "file", "format", "keyid", "iv", "qom-type")


class Secret:
    """A password or key; `data` is its bytes, and nothing else shows them."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} cannot be pickled: a secret does not go into files")

    @property
    def password(self) -> bytes:
        """The bytes as a password, which images take as UTF-8 without NUL. Raises UsageError."""
        try:
            text = self.data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise UsageError(f"secret {self.name!r}: a password must be UTF-8 text without NUL")
        return self.data


class Secrets:
    """The secrets of one command or program, by id."""

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._secrets)})"

    def __getitem__(self, name: str) -> Secret:
        """Look up a secret. Raises UsageError that names the known ones."""
        try:
            return self._secrets[name]
        except KeyError:
            known = ", ".join(self._secrets) or "none"
            raise UsageError(f"no secret with id {name!r}; known are {known}") from None

    @property
    def names(self) -> frozenset[str]:
        """The ids of all."""
        return frozenset(self._secrets)

    def parse(self, text: str) -> Secret:
        """Add a secret written "id=...,data=..." (with or without a first part "secret").

        Raises UsageError.
        """
        options: dict[str, str] = {}
        # ",," is a comma in a value; NUL cannot occur on a command line, so it can stand for one meanwhile.
        for number, part in enumerate(text.replace(",,", "\0").split(",")):
            key, equals, value = part.replace("\0", ",").partition("=")
            if not equals:
                if number == 0 and key == "secret":
                    continue
                # Not the part itself: it may be a piece of a password with a comma in it.
                raise UsageError(f"secret: option {number + 1} has no '='; a comma in a value is written twice")
            options[key] = value
        return self.add(options)

    def add(self, options: Mapping[str, str]) -> Secret:
        """Add a secret from its options. Raises UsageError that names what is wrong."""
        name = options.get("id", "")
        if not name:
            raise UsageError("secret: needs id=NAME")
        if name in self._secrets:
            raise UsageError(f"secret {name!r} is given twice")
        for key in options:
            if key not in _KNOWN:
                raise UsageError(f"secret {name!r}: unknown option; known are {', '.join(_KNOWN[:-1])}")
        secret = self._secrets[name] = Secret(name, self._load(name, options))
        return secret

    def _load(self, name: str, options: Mapping[str, str]) -> bytes:
        format = options.get("format", "raw")
        if format not in ("raw", "base64"):
            raise UsageError(f"secret {name!r}: format must be raw or base64")
        data = _stored(name, options)
        if format == "base64":
            data = _from_base64(name, "data" if "data" in options else "file", data)
        if "keyid" not in options:
            if "iv" in options:
                raise UsageError(f"secret {name!r}: iv needs keyid")
            return data
        if "iv" not in options:
            raise UsageError(f"secret {name!r}: keyid needs iv")
        iv = _from_base64(name, "iv", options["iv"].encode())
        return _decrypt(name, self[options["keyid"]], iv, data)


def _stored(name: str, options: Mapping[str, str]) -> bytes:
    """The bytes that data= or file= give."""
    if ("data" in options) == ("file" in options):
        raise UsageError(f"secret {name!r}: needs either data or file")
    if "data" in options:
        return options["data"].encode(errors="surrogateescape")  # the command line's own bytes
    try:
        with open(options["file"], "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"secret {name!r}: {options['file']} cannot be read: {what}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"secret {name!r}: {options['file']} is longer than {MAX_FILE_BYTES} bytes")
    return data


def _from_base64(name: str, what: str, text: bytes) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"secret {name!r}: {what} is not valid base64") from None


def _decrypt(name: str, key: Secret, iv: bytes, data: bytes) -> bytes:
    """AES-256-CBC with PKCS#7 padding, as `openssl enc -aes-256-cbc -K ... -iv ...` writes it."""
    if len(key.data) != 32:
        raise UsageError(f"secret {name!r}: key {key.name!r} has {len(key.data)} bytes, AES-256 needs 32")
    if len(iv) != 16:
        raise UsageError(f"secret {name!r}: iv has {len(iv)} bytes, AES needs 16")
    if not data or len(data) % 16:
        raise UsageError(f"secret {name!r}: encrypted data of {len(data)} bytes is no whole number of AES blocks")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    context = Cipher(algorithms.AES(key.data), modes.CBC(iv)).decryptor()
    plain = context.update(data) + context.finalize()
    padding = plain[-1]
    if not 1 <= padding <= 16 or plain[-padding:] != bytes([padding]) * padding:
        raise UsageError(f"secret {name!r}: does not decrypt with key {key.name!r} and this iv")
    return plain[:-padding]
