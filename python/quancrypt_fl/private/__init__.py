"""Differential privacy under encryption: discrete Gaussian noise, added by clients to integers."""
