"""Certificates of a deployment: real TLS handshakes, names, dates and constraints."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from quancrypt_fl.deployment.addresses import AddressError, check_host, listening, parse_address
from quancrypt_fl.deployment.certificates import (
    AUTHORITY_DAYS,
    DEFAULT_DAYS,
    Authority,
    Identity,
    issue,
    make_authority,
    private_pem,
    public_pem,
)

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
TIMEOUT = 20.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


Shake = Callable[[Identity, bytes, str], str]


@pytest.fixture
def shake(tmp_path: Path) -> Shake:
    """A handshake of a client that checks everything with a server: (identity, ca, host) -> what
    the server's side sent, or the error of the client's verification.
    """

    def make(identity: Identity, ca: bytes, host: str) -> str:
        certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
        certificate.write_bytes(public_pem(identity.certificate))
        key.write_bytes(private_pem(identity.key))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cadata=ca.decode())
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT)
        theirs.settimeout(TIMEOUT)

        def serve() -> None:
            try:
                with server.wrap_socket(theirs, server_side=True) as stream:
                    stream.sendall(b"hello")
            except (ssl.SSLError, OSError):
                theirs.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with client.wrap_socket(ours, server_hostname=host) as stream:
                return stream.recv(5).decode()
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        finally:
            ours.close()
            thread.join(TIMEOUT)

    return make


@pytest.mark.parametrize(
    "host", ["fl.example.org", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1", "::1"]
)
def test_a_client_connects_by_every_name(shake: Shake, authority: Authority, host: str) -> None:
    identity = issue(authority, ["fl.example.org", "192.0.2.7", "2001:db8::7"])
    assert shake(identity, public_pem(authority.certificate), host) == "hello"


@pytest.mark.parametrize("host", ["other.example.org", "a.fl.example.org", "192.0.2.8"])
def test_no_other_name_is_accepted(shake: Shake, authority: Authority, host: str) -> None:
    identity = issue(authority, ["fl.example.org", "192.0.2.7"])
    message = shake(identity, public_pem(authority.certificate), host)
    assert "mismatch" in message
    assert host in message


def test_another_deployment_is_not_trusted(shake: Shake, authority: Authority) -> None:
    identity = issue(make_authority(), ["localhost"])
    message = shake(identity, public_pem(authority.certificate), "localhost")
    assert "unable to get local issuer" in message


def test_a_servers_certificate_signs_nothing(shake: Shake, authority: Authority) -> None:
    """Whoever takes the server's key away can pose as it, but make no certificates."""
    server = issue(authority, ["localhost"])
    forged = issue(Authority(server.certificate, server.key), ["localhost"], days=1)
    message = shake(forged, public_pem(authority.certificate), "localhost")
    assert message != "hello"
    as_authority = shake(forged, public_pem(server.certificate), "localhost")
    assert as_authority != "hello"


def test_an_expired_certificate_is_refused(shake: Shake) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    old = make_authority(then)
    valid = issue(old, ["localhost"], days=31, now=then)
    expired = issue(old, ["localhost"], days=29, now=then)
    assert shake(valid, public_pem(old.certificate), "localhost") == "hello"
    assert "expired" in shake(expired, public_pem(old.certificate), "localhost")


def test_dates() -> None:
    authority = make_authority(NOW)
    certificate = issue(authority, ["localhost"], now=NOW).certificate
    day = datetime.timedelta(days=1)
    assert authority.certificate.not_valid_after_utc == NOW + AUTHORITY_DAYS * day
    assert certificate.not_valid_after_utc == NOW + DEFAULT_DAYS * day
    for each in (authority.certificate, certificate):
        assert each.not_valid_before_utc == NOW - day  # for clocks that are behind


@pytest.mark.parametrize("days", [0, -1, AUTHORITY_DAYS + 1])
def test_days_out_of_range(authority: Authority, days: int) -> None:
    with pytest.raises(ValueError, match=f"days = {days}; allowed: 1 to {AUTHORITY_DAYS}"):
        issue(authority, ["localhost"], days)


def test_no_certificate_outlives_its_authority() -> None:
    authority = make_authority(NOW - datetime.timedelta(days=AUTHORITY_DAYS - 10))
    issue(authority, ["localhost"], days=10, now=NOW)
    with pytest.raises(ValueError, match="ends on 2026-12-05"):
        issue(authority, ["localhost"], days=11, now=NOW)


def test_what_certificates_may_be_used_for(authority: Authority) -> None:
    ca = authority.certificate.extensions
    assert ca.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert ca.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert not ca.get_extension_for_class(x509.KeyUsage).value.digital_signature
    server = issue(authority, ["b.example.org", "localhost", "b.example.org"]).certificate
    extensions = server.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["b.example.org", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert server.public_key().curve.name == "secp256r1"


def test_a_long_name_of_a_host_fits(authority: Authority) -> None:
    host = ".".join(["a" * 60] * 4)
    names = issue(authority, [host]).certificate.extensions
    alternative = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert host in alternative.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fl.example.org", "fl.example.org", None),
        ("fl.example.org:9000", "fl.example.org", 9000),
        ("192.0.2.7:1", "192.0.2.7", 1),
        ("[2001:db8::7]:65535", "2001:db8::7", 65535),
        ("[::1]", "::1", None),
        ("2001:db8::7", "2001:db8::7", None),
    ],
)
def test_addresses(text: str, host: str, port: int | None) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", ":8000", "host:", "host:0", "host:65536", "host:eight", "host:-1", "host:٣",
        "a b", "https://host", "host/path", "-a.example.org", "a..b", "[::1", "[::1]8000",
        "0.0.0.0", "[::]:8000", "300.1.2.3", "1.2.3", "a" * 64, "ho\nst", "*.example.org",
    ],
)  # fmt: skip
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(AddressError, match=r"allowed|names? the one"):
        parse_address(text)


def test_a_host_of_254_characters_is_none() -> None:
    with pytest.raises(AddressError):
        check_host(".".join(["a" * 62] * 4) + ".ab")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("fl.example.org", "0.0.0.0"),
        ("192.0.2.7", "0.0.0.0"),
        ("2001:db8::7", "::"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.5", "127.0.0.5"),
        ("::1", "::1"),
    ],
)
def test_where_a_server_listens(host: str, address: str) -> None:
    assert listening(host) == address
