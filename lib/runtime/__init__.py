"""The machine: devices, processes, precision, files, signals and the command line."""
