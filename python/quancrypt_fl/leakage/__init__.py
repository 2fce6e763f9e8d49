"""What an attacker learns from each view of a federated training: attacks, measured.

A *view* (:mod:`~quancrypt_fl.leakage.views`) is what an attacker gets to see of an update: the
plain gradient, a pruned or quantized one, an aggregate, a ciphertext. Gradient inversion
(:mod:`~quancrypt_fl.leakage.inversion`) draws the training image from it, membership inference
(:mod:`~quancrypt_fl.leakage.membership`) tells whether a sample was trained on, and a distinguisher
(:mod:`~quancrypt_fl.leakage.distinguisher`) tells two messages apart by their ciphertexts.
"""
