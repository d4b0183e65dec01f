"""What every room of the package needs: checks, keys, files, rows of cells, neighbours."""
