"""Training on several processes at once, each with its share of every batch."""
