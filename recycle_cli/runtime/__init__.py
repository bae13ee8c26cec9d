"""The process and the machine: devices, memory, signals, random generators, dropout masks, background threads."""
