"""Measure networks on phones over adb: a small C program that any ONNX Runtime runs under."""
