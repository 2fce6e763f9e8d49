"""Deployments on several machines: kits of keys and settings, and the processes that use them."""
