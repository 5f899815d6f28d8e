"""Speed, memory and size of networks, measured side by side."""
