"""Where rounds run. The round itself is :mod:`quancrypt_fl.method.rounds` in all of them."""
