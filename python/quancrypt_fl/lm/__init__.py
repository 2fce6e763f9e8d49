"""Language models in a federation: adapters are what travels, encrypted like any update.

Needs the ``[lm]`` extra: ``pip install 'quancrypt-native[lm]'``.
"""
