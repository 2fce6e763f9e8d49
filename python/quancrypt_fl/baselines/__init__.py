"""Methods to compare with, behind the same interface as :mod:`quancrypt_fl.protect`."""
