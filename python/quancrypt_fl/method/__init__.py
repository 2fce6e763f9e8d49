"""The algorithm of QuanCrypt-FL (arXiv 2411.05260) as plain functions over NumPy arrays.

Nothing here knows torch, Flower, encryption or the command line. Start reading at
:mod:`quancrypt_fl.method.rounds`: it lists the steps of a round and composes the other files.
"""
