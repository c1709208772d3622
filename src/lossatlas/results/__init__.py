"""What a result is: kinds and their schemas, claims, provenance, files, a catalogue of results. No torch."""
