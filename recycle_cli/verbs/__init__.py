"""What the commands do, as functions: each takes its settings and returns a report of what it did."""
