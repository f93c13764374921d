"""What is it worth? Grids of cells, draws of labels, learning curves, two moons, checks after the choice."""
