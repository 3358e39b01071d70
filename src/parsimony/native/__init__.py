"""The layers of small convnets in C, for CPUs: compiled where they run, by the machine's own C compiler."""
