"""Data sets: finding their cases, checking them, and turning them into arrays.

``datasets`` finds the cases of a folder, ``splits`` makes the folds, ``volumes`` reads and writes single files,
``prepare`` turns the files of a case into arrays, ``checks`` reads everything and names what is wrong, ``fetch``
downloads a public data set. None of these imports torch before it computes.
"""
