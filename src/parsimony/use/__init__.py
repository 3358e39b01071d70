"""The commands that use a trained network: each a file with `main(arguments)`, and what they share."""
