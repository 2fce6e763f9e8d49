"""Two known messages, one ciphertext: which of them is in it?

Against sound encryption no attack does better than guessing. The same attacks win against settings
that are broken on purpose (:mod:`~quancrypt_fl.leakage.distinguisher.rlwe`), so that a result at
chance means something.
"""
