"""The process and the machine: devices, memory, signals, random numbers, threads that overlap."""
