"""Keys that sign attestations: Ed25519, or ECDSA with SHA-256, in PEM files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from dynalign_operator.provenance.attestation import AttestationError, IsSigned

_ECDSA = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True)
class PrivateKey:
    """A private key, as `attestation.Signer` has it."""

    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @property
    def key_id(self) -> str:
        """Hexadecimal SHA-256 of the public key, in DER."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.key.public_key().public_bytes(serialization.Encoding.DER, form)).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, _ECDSA)


def read_private_key(file: Path) -> PrivateKey:
    """The key in a PEM file without a password. Raises AttestationError and OSError."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise AttestationError(
            f"{file} is no private key in PEM without a password; make one with `openssl genpkey -algorithm ed25519`"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise AttestationError(f"{file} is neither an Ed25519 nor an ECDSA key; make one of these")
    return PrivateKey(key)


def read_public_key(file: Path) -> IsSigned:
    """The check of signatures by the public key in a PEM file. Raises AttestationError and OSError."""
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except ValueError as error:
        raise AttestationError(
            f"{file} is no public key in PEM; make it with `openssl pkey -in KEY -pubout`"
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise AttestationError(f"{file} is neither an Ed25519 nor an ECDSA key")

    def is_signed(message: bytes, signature: bytes) -> bool:
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return True

    return is_signed
