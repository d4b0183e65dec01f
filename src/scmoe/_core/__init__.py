"""What every package of scmoe needs: checks, keys, files, rows of cells, neighbours."""
