"""Watching a deployed run from its ``status.json``: in a terminal, or on a page that refreshes.

Needs neither Flower nor torch, so that it works on any machine that sees the server's folder. The
file may have come from elsewhere, and holds texts of clients: it is read with the bounds of
:mod:`quancrypt_fl.report`.
"""
