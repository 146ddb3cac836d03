"""From files to answers, from a bundle alone: no torch."""
