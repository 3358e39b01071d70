"""`parsimony explain`: what a trained network learned, shown on the network itself."""
