"""What recycle costs on this machine, beside what it cannot beat and what people use instead."""
