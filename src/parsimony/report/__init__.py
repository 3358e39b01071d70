"""What training left in folders, ours or not, as tables, pictures and one page: `parsimony report FOLDER...`."""
