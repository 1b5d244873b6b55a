"""Sector ciphers for encrypted images, and the secrets that unlock them."""
