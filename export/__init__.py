"""Turns trained generators into ONNX files for phones, and proves them equal."""
