"""The paper's tables and its figure, from our runs, with the paper's own figures beside them."""
