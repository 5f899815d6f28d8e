"""Planning: from a folder of scans to an experiment that trains on them, after the rules of nnU-Net."""

MEMORY_GIB = 4.0
"""Memory that training may take where nobody says, in GiB."""
