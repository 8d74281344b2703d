"""Latency and cost of convolutional networks on phones: op lists, costs, profiles, profilers.

The lowest room: it imports none of `mfagan`, `export` and `nas`, and neither torch nor onnx when
it is imported. It also holds what every command shares (`commandline`, `files`, `progress`).
"""
