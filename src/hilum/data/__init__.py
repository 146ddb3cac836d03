"""Data: finding, reading, splitting and caching radiographs, and drawing phantoms of them."""
