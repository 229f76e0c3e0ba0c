"""The cryptographic primitives: X25519, HKDF-SHA256, ChaCha20-Poly1305 and ChaCha20, all of the library `cryptography`.

It is an extra (`pip install 'fedlit[privacy]'`) and imported inside functions only.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlit.errors import UserError

KEY_BYTES = 32
TAG_BYTES = 16

_NONCE = bytes(12)
"""Each key that seals anything is derived for one message, so the nonce need not differ."""

BLOCK = 2**15
"""Integers that are expanded at once: 256 KiB, which a core's own cache holds beside what they are added to."""

_ZEROS = memoryview(bytes(8 * BLOCK))


def require_library() -> None:
    """Raise a UserError if the library is not installed."""
    if find_spec("cryptography") is None:
        raise UserError(
            "privacy.secure_aggregation=true needs the library cryptography, which is not installed; "
            "pip install 'fedlit[privacy]', or set privacy.secure_aggregation=false"
        )


class KeyPair:
    """A pair of X25519 keys.

    Args:
        secret: 32 bytes, any.
    """

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415  an extra

        self.secret = secret
        self._key: Any = X25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the 32 bytes that this pair shares with the pair of another's public key."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey  # noqa: PLC0415  an extra

        shared: bytes = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        return shared


def derive(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes for one purpose (HKDF-SHA256, RFC 5869, without salt)."""
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415  an extra

    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Return the plain text encrypted and authenticated with its context, 16 bytes longer.

    Args:
        key: 32 bytes, derived for this one message.
        plain: what only the receiver may read.
        context: what the message belongs to, known to both sides.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415  an extra

    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return the plain text.

    Raises:
        ValueError: the key, the context or the message is not the one it was sealed with.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415  an extra

    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, context)
    except InvalidTag:
        raise ValueError("a sealed share was not made with this key for this receiver") from None


class KeyStream:
    """The ChaCha20 stream of a key as 64-bit integers, read one block after the other.

    Args:
        key: 32 bytes, derived for this one stream.
    """

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415  an extra
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20  # noqa: PLC0415  an extra

        self._encryptor: Any = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def fill(self, block: NDArray[np.int64]) -> None:
        """Write the next integers of the stream into a contiguous block of at most BLOCK."""
        raw = block.view(np.uint8)
        self._encryptor.update_into(_ZEROS[: raw.nbytes], raw)
