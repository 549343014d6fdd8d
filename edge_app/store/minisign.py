"""Verifies signatures of minisign (https://jedisct1.github.io/minisign/): Ed25519 over a file, and over
the signature together with a trusted comment.

Secret keys stay where models are published; ``minisign -S`` makes the signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge_app.errors import EXIT_MODEL, AppError

COMMENT, TRUSTED = "untrusted comment: ", "trusted comment: "
PURE, PREHASHED = b"Ed", b"ED"
"""What is signed: the file itself (old), or its BLAKE2b hash of 64 bytes (the default today)."""


@dataclass(frozen=True)
class PublicKey:
    """``number`` tells keys apart, ``place`` is the file it was read from."""

    number: bytes
    key: bytes
    place: str

    @property
    def name(self) -> str:
        """As minisign prints it: hexadecimal, the last byte first."""
        return self.number[::-1].hex().upper()


def read_public_key(path: Path) -> PublicKey:
    """A ``.pub`` file as ``minisign -G`` writes it. AppError (exit code 5) if it is none."""
    lines = _text(path).splitlines()
    encoded = lines[1] if len(lines) > 1 and lines[0].startswith(COMMENT) else ""
    content = _decoded(encoded, 42, path, "public key")
    if content[:2] != PURE:
        raise _unusable(path, "public key")
    return PublicKey(content[2:10], content[10:], str(path))


@dataclass(frozen=True)
class Signature:
    """``comment`` is signed too; minisign writes the time and the file's name into it."""

    algorithm: bytes
    number: bytes
    signature: bytes
    comment: str
    whole: bytes
    place: str


def read_signature(path: Path) -> Signature:
    """A ``.minisig`` file. AppError (exit code 5) if it is none."""
    lines = _text(path).splitlines()
    if len(lines) < 4 or not lines[0].startswith(COMMENT) or not lines[2].startswith(TRUSTED):
        raise _unusable(path, "signature")
    content = _decoded(lines[1], 74, path, "signature")
    whole = _decoded(lines[3], 64, path, "signature")
    if content[:2] not in (PURE, PREHASHED):
        raise _unusable(path, "signature")
    comment = lines[2].removeprefix(TRUSTED)
    return Signature(content[:2], content[2:10], content[10:], comment, whole, str(path))


def verify(data: bytes, signature: Signature, keys: list[PublicKey]) -> PublicKey:
    """The key that signed ``data``. AppError (exit code 5) if none of ``keys`` did."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signed = data
    if signature.algorithm == PREHASHED:
        signed = hashlib.blake2b(data, digest_size=64).digest()
    candidates = [key for key in keys if key.number == signature.number]
    for key in candidates:
        checker = Ed25519PublicKey.from_public_bytes(key.key)
        try:
            checker.verify(signature.signature, signed)
            checker.verify(signature.whole, signature.signature + signature.comment.encode())
        except InvalidSignature:
            continue
        return key
    if candidates:
        raise AppError(
            f"{signature.place}: the signature does not fit: the file or the signature was changed",
            EXIT_MODEL,
        )
    known = ", ".join(key.name for key in keys) or "none"
    signer = signature.number[::-1].hex().upper()
    raise AppError(
        f"{signature.place}: signed by key {signer}, which is not trusted here (trusted: {known}); "
        "put its .pub file into /etc/edge-app/keys.d, or name it with --key",
        EXIT_MODEL,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(f"{path}: cannot be read: {error}", EXIT_MODEL) from None


def _decoded(encoded: str, length: int, path: Path, what: str) -> bytes:
    try:
        content = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        content = b""
    if len(content) != length:
        raise _unusable(path, what)
    return content


def _unusable(path: Path, what: str) -> AppError:
    return AppError(f"{path}: not a {what} of minisign", EXIT_MODEL)
