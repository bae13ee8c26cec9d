"""A dry run on a sample of a corpus: what each cut would cost, and whether it would pay."""
