"""Precompute on a Ray cluster: a driver hands out shards of the corpus, and workers fill the store that all share.

Nothing is imported here, so that a worker can choose its threads before it loads PyTorch.
"""
