"""The studies of the paper, each a table, a figure and a paragraph of numbers from one command."""
