"""Planning: from a folder of scans to an experiment that trains on them, after the rules of nnU-Net."""
