"""Numbers that describe a structure and its charge density, in named blocks."""
