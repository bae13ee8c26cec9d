"""Rows to shuffled padded batches."""
