"""Membership inference: was this sample trained on?

Cells gather evidence about every sample of a pool, half of which was trained on
(:mod:`~quancrypt_fl.leakage.membership.evidence`); scores tell members from the others by it
(:mod:`~quancrypt_fl.leakage.membership.scores`).
"""
