"""The paper's comparison, remade: every method, seed and data set as a cell of a grid that can be interrupted."""
