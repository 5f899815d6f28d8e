"""From trained networks and files of images to label maps."""
