"""Samples to rows: the frozen trunk over a stream, what the store lacks, and the proof that stored rows are right."""
