"""Searches the supernet for the best SubGenerator within the budget of a phone."""
