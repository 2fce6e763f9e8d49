"""RFC 8032, section 7.1: the library signs and checks as the standard says."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quancrypt_fl.envelopes import Member, MembersError

# secret, public, message, signature: TEST 1, TEST 2, TEST 3 and TEST SHA(abc)
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert key.public_key().public_bytes_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    member = Member("a", bytes.fromhex(public))
    assert member.signed(bytes.fromhex(signature), bytes.fromhex(message))
    assert not member.signed(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


def test_a_signature_has_one_form() -> None:
    """S + L is the same number modulo L, and RFC 8032 refuses it: signatures are not malleable."""
    _, public, message, signature = VECTORS[1]
    order = 2**252 + 27742317777372353535851937790883648493
    data = bytes.fromhex(signature)
    other = int.from_bytes(data[32:], "little") + order
    assert other < 2**256
    changed = data[:32] + other.to_bytes(32, "little")
    assert not Member("a", bytes.fromhex(public)).signed(changed, bytes.fromhex(message))


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def _x(y: int) -> int | None:
    """A point's x from its y on -x² + y² = 1 + d x² y², if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def _double(x: int, y: int) -> tuple[int, int]:
    product = D * x * x * y * y
    return (
        2 * x * y * pow(1 + product, -1, P) % P,
        (y * y + x * x) * pow(1 - product, -1, P) % P,
    )


def test_keys_of_small_order_are_no_members() -> None:
    from quancrypt_fl.envelopes.members import _SMALL_ORDER

    found = set()
    for y in _SMALL_ORDER:
        x = _x(y % P)
        assert x is not None
        point = (x, y % P)
        found |= {point, (-x % P, y % P)}
        for _ in range(3):
            point = _double(*point)
        assert point == (0, 1)
        for sign in (0, 1):
            with pytest.raises(MembersError, match="small order"):
                Member("a", (y | sign << 255).to_bytes(32, "little"))
    assert len(found) == 8  # all points whose order divides the cofactor
