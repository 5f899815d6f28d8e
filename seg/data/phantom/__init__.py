"""Embedded data set: labelled 3-D phantoms from a seed."""
