"""MFAGAN: a small super-resolution generator, its training and its use.

Importing this package does not import torch.
"""
