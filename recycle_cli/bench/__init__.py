"""`recycle bench`: measure recycle on this machine, beside limits it cannot beat and baselines people use instead."""
