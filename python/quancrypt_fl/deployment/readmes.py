"""What stands in the README.txt of kits: what a folder is, what is secret, where it goes."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from quancrypt_fl.joint.facts import JointFacts

__all__ = ["authority", "client", "data_options", "newcomers", "overview", "server"]


_OPENS_ALL = """it holds
  the key that opens every client's update."""
_SEALS_PARTS = """it holds
  the clients' group key, which keeps means and models from the server.
- Whoever keeps as many kits as open a sum, with their passphrases, and records
  what passes the server while the clients make their key, has that key."""


def data_options(app: str) -> str:
    """How a client of such a run names its data; see :data:`.kits.APPS`."""
    return "--model BASE --data DATA" if app == "finetune" else "--data-dir DATA"


def overview(
    names: list[str],
    address: str,
    expires: datetime.datetime,
    *,
    joint: bool = False,
    app: str = "builtin",
) -> str:
    """For the folder that holds all kits; ``joint``: with a threshold key."""
    holds = _SEALS_PARTS if joint else _OPENS_ALL
    sites = "".join(f"  {name + '/':<20} to the site {name}\n" for name in names)
    return f"""Kits of a QuanCrypt deployment
==============================

Each folder goes to one machine, as a whole, over a channel that others cannot
read (scp, an encrypted disk). Then delete it here.

  {"server/":<20} to the machine that clients reach as {address}
{sites}
- The clients' passphrases go to them by another way than their kits.
- No client's kit may reach the server, its operators or its backups: {holds}
- A kit belongs to one machine. Do not start one on two.

Then, the server first:

  server machine         quancrypt server server
  each client's machine  quancrypt client {names[0]} {data_options(app)}
  server machine         quancrypt run server

Clients connect to {address}, TCP: open that port at the server's firewall.
Clients need no open port. The server's certificate is valid until
{expires:%Y-%m-%d}; make new kits before.
"""


def newcomers(names: Sequence[str], address: str, *, app: str = "builtin") -> str:
    """For the folder that holds kits of clients that come later."""
    sites = "".join(f"  {name + '/':<20} to the site {name}\n" for name in names)
    return f"""Kits of clients that join a QuanCrypt deployment
================================================

{sites}  {"admission.toml":<20} to the server {address}: names and public keys, nothing
                       secret. Whoever can change it on its way decides who
                       may connect

A client's kit goes as a whole, over a channel that others cannot read, and
never to the server; its passphrase by another way. Then delete it here.

  server machine         quancrypt server server --admit admission.toml
  each client's machine  quancrypt client {names[0]} {data_options(app)}

The server may be running, also in the middle of a training: it lets the
newcomers in within seconds, and they catch up by themselves.
"""


_SITES_CHANGE = """quancrypt server . --admit FILE adds some that come later,
                   quancrypt server . --remove NAME takes one off"""
_SITES_STAY = """quancrypt server . --remove NAME takes one off, as long as
                   enough are left to open a sum; none can be added"""
_JOINT_FILE = """  joint.toml       the parties of the threshold key, and their public keys
"""


_INITIAL_FILE = """  initial.safetensors
                   what travels of the adapter, as it begins, public
"""
_FROZEN_FILE = """  frozen.safetensors
                   what never travels of the adapter, the same at all sites
"""


def server(address: str, port: int, *, joint: bool = False, app: str = "builtin") -> str:
    """For the server's kit; ``joint``: with a threshold key."""
    sites, joint_file = (_SITES_STAY, _JOINT_FILE) if joint else (_SITES_CHANGE, "")
    initial_file = _INITIAL_FILE if app == "finetune" else ""
    return f"""Kit of the server of a QuanCrypt deployment
===========================================

Goes to the machine that clients reach as {address}.
Start:  quancrypt server .     then     quancrypt run .
Open port {port}, TCP, to the clients.

  deployment.toml  address, identity of the clients' key, configuration of the
                   run. May be edited before the run, [key] aside; bits and
                   max_weight belong to params.qcp and cannot change. What is
                   changed in [run] has to be so in every client's node.toml
  clients.toml     the sites; supernodes/ has the public keys of their nodes.
                   {sites}
  members.toml     public keys by which the sites' uploads are checked
{joint_file}{initial_file}  params.qcp       encryption parameters, public
  ca.pem           certificate of the deployment's authority, public
  server.pem       certificate of this server, public
  server.key       SECRET: its private key. Whoever has it can pose as the server
  state/           made when the server starts

Nothing here opens an update of a client. Never put a client's kit on this
machine.
"""


_SHARED_KEY = """  secret.key       SECRET: the clients' common key, sealed with a passphrase.
                   With the passphrase it opens every client's update
"""


def _joint_key(facts: JointFacts) -> str:
    needed, parties = facts.threshold, len(facts.parties)
    return f"""  secret.key       SECRET: the clients' group key, sealed with a passphrase. It
                   opens means and models on their way through the server, and
                   no client's update: {needed} of the {parties} sites open a sum together
  group.qcp        its parameters, public
  joint.toml       the {parties} sites and their public channel keys
  channel.key      SECRET: this site's own, sealed with the same passphrase. It
                   opens what other sites deal to this one, and the share in
                   state/joint: keep both, nobody can make them again
"""


def client(
    name: str, address: str, facts: JointFacts | None = None, *, app: str = "builtin"
) -> str:
    """For a client's kit; ``facts``: of the threshold key, if there is one."""
    keys = _SHARED_KEY if facts is None else _joint_key(facts)
    frozen_file = _FROZEN_FILE if app == "finetune" else ""
    title = f"Kit of the site {name} of a QuanCrypt deployment"
    return f"""{title}
{"=" * len(title)}

Goes to the machine of this site that has its data. Never to the server.
Start:  quancrypt client . {data_options(app)}
It asks for the passphrase of secret.key, or takes $QUANCRYPT_PASSPHRASE.
It connects to {address}; no port has to be open here.

  node.toml        name, place among the sites, address of the server,
                   configuration of the run: this client takes part in no other
  params.qcp       encryption parameters, public
{keys}  signing.key      SECRET: this site's own, sealed with the same passphrase. With
                   it uploads are signed in the name of {name}
{frozen_file}  ca.pem           certificate by which the server is recognized, public
  supernode.key    SECRET: private key by which the server recognizes this site
  supernode.pub    its public key
  state/           made when the client starts: the model, in the clear
"""


def authority(expires: datetime.datetime) -> str:
    """For the folder of a kept certificate authority."""
    return f"""Certificate authority of a QuanCrypt deployment
===============================================

Keep it off the server and off the clients. ca.key is SECRET and not sealed:
whoever has it can pose as the server. It is needed only to sign another
certificate for the server, whose clients then keep their ca.pem:

  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
      -keyout server.key -subj "/CN=HOST" \\
      -addext "subjectAltName=DNS:HOST,DNS:localhost,IP:127.0.0.1" -out server.csr
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 825 \\
      -copy_extensions copy -out server.pem

and server.pem and server.key into the server's kit. The authority ends on
{expires:%Y-%m-%d}.
"""
