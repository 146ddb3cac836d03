"""Phantoms: synthetic chest radiographs with exact lung and region masks."""
