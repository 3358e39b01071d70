"""`parsimony draw`: a page on this machine alone to draw digits on, with a trained network behind it."""
