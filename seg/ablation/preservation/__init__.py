"""What bottlenecks preserve of the features that they narrow."""
