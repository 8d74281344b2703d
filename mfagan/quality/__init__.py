"""Measures of image quality; every name carries its protocol."""
