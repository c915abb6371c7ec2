"""The parts of a detector, one file each."""
