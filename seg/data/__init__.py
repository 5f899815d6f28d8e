"""Data sets: finding their cases, checking them, and turning them into arrays.

``readers`` finds the cases of a folder, ``splits`` makes the folds, ``checks`` reads everything and names what is
wrong, ``nifti`` reads and writes single files, ``fetch`` downloads a public data set. None of these imports torch.
"""
