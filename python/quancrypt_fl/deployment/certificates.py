"""TLS for one deployment: an authority of its own, and the server's certificate.

Clients trust this authority alone, so nobody outside of the deployment can stand in for the server.
Its private key signs once. What nobody kept, nobody can steal.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quancrypt_fl.deployment.addresses import ip_address

__all__ = [
    "AUTHORITY_DAYS",
    "DEFAULT_DAYS",
    "LOCAL_HOSTS",
    "Authority",
    "Identity",
    "issue",
    "make_authority",
    "private_pem",
    "public_pem",
]

AUTHORITY_DAYS = 3650
"""Validity of the authority: with a kept key, a new server certificate needs no new ``ca.pem``."""

DEFAULT_DAYS = 825
"""Validity of the server's certificate: the most that every TLS library in use accepts."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""In every certificate: the server's own processes connect on the machine."""

_SLOW_CLOCK = datetime.timedelta(days=1)  # a site whose clock is behind accepts it all the same
_COMMON_NAME_LIMIT = 64  # characters, of X.520


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Identity:
    """A server's certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(now: datetime.datetime | None = None) -> Authority:
    """An authority with a fresh key, which can sign servers' certificates and nothing below them.

    Parameters
    ----------
    now
        Time of issue, with a time zone; by default the present.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"QuanCrypt deployment {secrets.token_hex(8)}")
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_authority_identifier(key), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(
    authority: Authority,
    hosts: Iterable[str],
    days: int = DEFAULT_DAYS,
    now: datetime.datetime | None = None,
) -> Identity:
    """A certificate for a server with a fresh key.

    Parameters
    ----------
    authority
        Signs it.
    hosts
        Names and IP addresses by which clients connect; :data:`LOCAL_HOSTS` are added.
    days
        Validity, 1 to :data:`AUTHORITY_DAYS`.
    now
        Time of issue, with a time zone; by default the present.

    Raises
    ------
    ValueError
        If ``days`` is out of range, or the authority's certificate ends before.
    """
    if not 1 <= days <= AUTHORITY_DAYS:
        raise ValueError(f"days = {days}; allowed: 1 to {AUTHORITY_DAYS}")
    now = now or datetime.datetime.now(datetime.UTC)
    names = list(dict.fromkeys([*hosts, *LOCAL_HOSTS]))
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(names[0]), authority.certificate.subject, key.public_key(), now, days)
    end = authority.certificate.not_valid_after_utc
    if now + datetime.timedelta(days=days) > end:
        raise ValueError(f"days = {days}; the authority's certificate ends on {end:%Y-%m-%d}")
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False
        )
        .add_extension(_authority_identifier(authority.key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Identity(certificate, key)


def public_pem(certificate: x509.Certificate) -> bytes:
    """PEM of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM of a private key, PKCS #8, not encrypted: a secret."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_COMMON_NAME_LIMIT])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLOW_CLOCK)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(**allowed: bool) -> x509.KeyUsage:
    every = {
        "digital_signature": False,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": False,
        "crl_sign": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    return x509.KeyUsage(**{**every, **allowed})


def _alternative(host: str) -> x509.GeneralName:
    address = ip_address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)
