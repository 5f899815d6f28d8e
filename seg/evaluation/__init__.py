"""Scores of label maps and their summary; nothing here imports torch."""
