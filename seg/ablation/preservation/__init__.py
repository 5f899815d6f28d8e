"""What bottlenecks preserve of the features that they narrow, and the widths that a spectrum calls for.

Importing this package imports no torch: a report reads records and needs neither networks nor images.
"""
