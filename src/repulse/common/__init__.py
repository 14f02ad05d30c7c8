"""What every room uses: errors, files, random numbers, units. It imports from no room."""
