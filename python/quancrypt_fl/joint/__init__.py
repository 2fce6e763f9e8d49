"""Training under a key that nobody holds: any ``t`` of ``n`` clients open a sum together.

:mod:`.opened` is what travels, :mod:`.protector` what a client holds. In a simulation
:mod:`.channel` makes the joint key and :mod:`.quorum` asks clients for their parts; in a deployment
both are the business of :mod:`quancrypt_fl.flower`.
"""
