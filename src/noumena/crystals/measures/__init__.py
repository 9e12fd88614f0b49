"""What crystals are measured with: search for matches, worker processes, distances, fingerprints, counts."""
