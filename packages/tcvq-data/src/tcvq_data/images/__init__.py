"""Image datasets in the formats they are published in."""
